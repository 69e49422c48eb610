"""The report of a training run: loss, PSNR and learning rate by step, and examples."""

from collections.abc import Mapping, Sequence
from html import escape

from mambair_cli.pages.charts import draw_chart
from mambair_cli.pages.document import write_document

MOST_SHOWN = 12  # measurements whose examples are shown: the first, the last, and some between

LogLine = Mapping[str, float]
"""A line of the log: ``step``, ``seconds``, and either ``loss`` and ``learning_rate`` or PSNRs."""

Examples = Mapping[str, str]
"""Addresses of pictures, by the name of the image."""


def write_report(
    title: str,
    settings: Mapping[str, str],
    lines: Sequence[LogLine],
    inputs: Examples,
    truths: Examples,
    restored: Mapping[int, Examples],
) -> str:
    """Write the report as a page.

    Args:
        title: Title of the page.
        settings: What the run was given, by name.
        lines: The log.
        inputs: What the network gets, at the size of its output.
        truths: What it should give.
        restored: What it gave, by the step of the measurement.
    """
    losses = [line for line in lines if "loss" in line]
    measured = [line for line in lines if "loss" not in line]
    names = sorted({name for line in measured for name in line if name.startswith("psnr")})
    psnr = {name: [(line["step"], line[name]) for line in measured if name in line] for name in names}
    charts = [
        draw_chart(
            "Loss", {"loss": [(line["step"], line["loss"]) for line in losses]}, "step", "mean of 100 steps"
        ),
        draw_chart("PSNR of the validation images", psnr, "step", "dB"),
        draw_chart(
            "Learning rate",
            {"rate": [(line["step"], line["learning_rate"]) for line in losses]},
            "step",
            "at the steps that are logged",
        ),
    ]
    body = [
        f"<header><h1>{escape(title)}</h1></header><main>",
        f"<p>{escape(_summarize(lines, psnr))}</p>",
        *charts,
        _write_examples(inputs, truths, restored),
        '<h2>Settings</h2><div class="wide"><table><tbody>',
        *(
            f'<tr><th scope="row" class="short">{escape(name)}</th><td class="long">{escape(value)}</td></tr>'
            for name, value in settings.items()
        ),
        "</tbody></table></div></main>",
    ]
    return write_document(f"{title} - mambair", "\n".join(body), ["viewer.css", "report.css"], [])


def _summarize(lines: Sequence[LogLine], psnr: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Say in a sentence where the run is."""
    if not lines:
        return "No step is logged yet."
    last = lines[-1]
    best = "".join(f"; {name} {values[-1][1]:.2f} dB" for name, values in psnr.items() if values)
    return f"{last['step']:.0f} steps in {_show_time(last['seconds'])}{best}."


def _show_time(seconds: float) -> str:
    minutes = seconds / 60
    return (
        f"{seconds:.0f} s"
        if minutes < 2
        else f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.1f} h"
    )


def _write_examples(inputs: Examples, truths: Examples, restored: Mapping[int, Examples]) -> str:
    """Write a table: an image in each row, from the input over the measurements to the truth."""
    if not restored:
        return ""
    steps = sorted(restored)
    if len(steps) > MOST_SHOWN:
        places = [round(n * (len(steps) - 1) / (MOST_SHOWN - 1)) for n in range(MOST_SHOWN)]
        steps = [steps[place] for place in places]
    heads = ["input", *(f"step {step}" for step in steps), "truth"]
    rows = []
    for name in inputs:
        columns = [inputs.get(name), *(restored[step].get(name) for step in steps), truths.get(name)]
        cells = [
            f'<td><img src="{source}" alt="{escape(f"{name}, {head}", quote=True)}"></td>'
            if source
            else "<td></td>"
            for source, head in zip(columns, heads, strict=True)
        ]
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in ("", *heads))
    return (
        f'<h2>Examples</h2><div class="wide"><table class="examples"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
