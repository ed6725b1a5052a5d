"""The options that say how a model is quantized, once for all commands that do; and what accuracy control found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from evo_tvm.cli._options import PATH
from evo_tvm.cli._show import clip, show, table
from evo_tvm.errors import UsageError

if TYPE_CHECKING:
    from evo_tvm.quantize.request import QuantizeRequest

#: Layers with the largest errors that are shown; JSON has all.
LAYERS_SHOWN = 10

_CALIBRATION = (
    click.option(
        "--calib",
        metavar="DATA",
        type=PATH,
        help="Samples: an .npz, or a folder of .npy files or of PNG or JPEG images.",
    ),
    click.option("--samples", metavar="N", type=click.IntRange(min=1), help="Use so many samples.  [default: all]"),
    click.option(
        "--observer",
        type=click.Choice(["kl", "minmax", "moving-average", "mse", "percentile"]),
        default="percentile",
        show_default=True,
        help="How the range of a tensor is found.",
    ),
    click.option(
        "--percentile",
        metavar="P",
        type=float,
        default=99.99,
        show_default=True,
        help="What --observer percentile keeps.",
    ),
    click.option(
        "--activations",
        type=click.Choice(["uint8", "int8"]),
        default="uint8",
        show_default=True,
        help="Type of what flows between layers.",
    ),
    click.option("--symmetric", is_flag=True, help="Activations have zero in the middle of their range."),
    click.option("--per-tensor", is_flag=True, help="One scale for the weights of a layer, not one for each channel."),
    click.option(
        "--skip", metavar="NAME", multiple=True, help='Keep this node in float; patterns such as "head.*" too.'
    ),
    click.option("--skip-operator", metavar="OP", multiple=True, help="Keep nodes of this operator in float."),
    click.option("--keep-first", is_flag=True, help="Keep the first layer in float."),
    click.option("--keep-last", is_flag=True, help="Keep the last layer in float."),
    click.option("--equalize", is_flag=True, help="Equalize the weights of neighbouring layers first."),
    click.option("--bias-correction", is_flag=True, help="Take back what rounding the weights does to the means."),
)
_ACCURACY = (
    click.option(
        "--max-drop",
        metavar="D",
        type=float,
        help="Give layers back to float until the score falls by at most this: 0.005 is half a point.",
    ),
    click.option(
        "--metric",
        type=click.Choice(["accuracy", "agreement", "cosine"]),
        help="The score of --max-drop: of labels, of the float model's classes, of its outputs.  "
        "[default: the first that fits]",
    ),
    click.option("--holdout", metavar="DATA", type=PATH, help="Samples that --max-drop counts.  [default: --calib]"),
    click.option(
        "--labels",
        metavar="FILE",
        type=PATH,
        help='Their labels, .npy or .npz.  [default: "labels" beside the samples]',
    ),
)
_IMAGES = (
    click.option("--resize", metavar="PIXELS", type=click.IntRange(min=1), help="Images: length of shorter side."),
    click.option("--crop", metavar="PIXELS", type=click.IntRange(min=1), help="Images: the middle is taken."),
    click.option("--mean", metavar="M[,M,M]", default="0", help="Images: subtracted from pixels in [0, 1]."),
    click.option("--std", metavar="S[,S,S]", default="1", help="Images: divided by this after --mean."),
    click.option("--channel-order", type=click.Choice(["rgb", "bgr"]), default="rgb", help="Images: of channels."),
    click.option("--layout", type=click.Choice(["nchw", "nhwc"]), default="nchw", help="Images: order of axes."),
)


def quantize_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options that `read_quantize_options` reads."""
    for option in reversed((*_CALIBRATION, *_ACCURACY, *_IMAGES)):
        command = option(command)
    return command


def read_quantize_options(options: Mapping[str, Any]) -> QuantizeRequest:
    """What the options ask for. Raises UsageError: a value that cannot be, or that needs --max-drop."""
    from evo_tvm.quantize.accuracy_goal import AccuracyGoal
    from evo_tvm.quantize.calibration_images import Preprocessing
    from evo_tvm.quantize.options import QuantizeOptions
    from evo_tvm.quantize.request import QuantizeRequest

    goal = None
    if options["max_drop"] is not None:
        goal = AccuracyGoal(options["max_drop"], options["metric"], options["holdout"], options["labels"])
    for name in ("metric", "holdout", "labels"):
        if goal is None and options[name] is not None:
            raise UsageError("is for --max-drop alone", where=f"--{name}", hint="Say how far the score may fall.")
    return QuantizeRequest(
        calib=options["calib"],
        quantize_options=QuantizeOptions(
            observer=options["observer"],
            percentile=options["percentile"],
            activations=options["activations"],
            symmetric=options["symmetric"],
            per_channel=not options["per_tensor"],
            skip=options["skip"],
            skip_operators=options["skip_operator"],
            keep_first=options["keep_first"],
            keep_last=options["keep_last"],
            equalize=options["equalize"],
            bias_correction=options["bias_correction"],
        ),
        samples=options["samples"],
        preprocessing=Preprocessing(
            options["resize"],
            options["crop"],
            parse_numbers("--mean", options["mean"]),
            parse_numbers("--std", options["std"]),
            options["channel_order"],
            options["layout"],
        ),
        accuracy=goal,
    )


def refuse_given(context: click.Context, options: Mapping[str, Any], why: str) -> None:
    """Refuse those of `options` that are on the command line. Raises UsageError."""
    for name in options:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(why, where=f"--{name.replace('_', '-')}")


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """`"0.485,0.456,0.406"` as numbers. Raises UsageError: a text of another form."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError("not numbers", where=option, expected="like 0.5 or 0.485,0.456,0.406", got=text) from None


def show_accuracy(found: Mapping[str, Any]) -> None:
    """Show an `AccuracyReport`, as JSON has it."""
    given, layers = found["given_back"], found["layers"]
    rows = table("layer", "operator", ">alone dB", "given back")
    for layer in layers[: max(LAYERS_SHOWN, len(given))]:
        error = "-" if layer["own_db"] is None else f"{layer['own_db']:.1f}"
        rows.add_row(clip(layer["name"], 60), layer["operator"], error, "yes" if layer["given_back"] else "")
    show(
        "SQNR of layers alone, the largest errors first:",
        rows,
        f"\n{score_text(found)}",
        f"drop: {drop_text(found)}; {found['worse']} samples worse, {found['better']} better; "
        f"allowed {found['max_drop']:g}",
        f"{len(given)} of {len(layers)} layers given back to float" + (f": {', '.join(given)}" if given else ""),
        "",
    )


def score_text(found: Mapping[str, Any]) -> str:
    """The scores of an `AccuracyReport`, as JSON has it, on one line."""
    form = ".5f" if found["metric"] == "cosine" else ".2%"
    scores = f"{found['float_score']:{form}} in float, {found['score']:{form}} now"
    return f"{found['metric']} over {found['samples']} samples: {scores}"


def drop_text(found: Mapping[str, Any]) -> str:
    """The drop with its interval; JSON has None for an interval without end, which one sample gives."""
    is_cosine = found["metric"] == "cosine"

    def number(value: float | None) -> str:
        if value is None:
            return "?"
        return f"{value:.2g}" if is_cosine else f"{100 * value:.2f}"

    low, high = map(number, found["interval"])
    drop = f"{number(found['drop'])}{'' if is_cosine else ' points'}"
    return f"{drop}; of as many others between {low} and {high} with 95 % confidence"
