"""From a cleaned Relax module to a planned kernel graph: reading, fusing, layouts, constants."""
