"""Boards over TVM's RPC: the client (`session`, `remote_module`), the server of boards with Python, and the tracker."""
