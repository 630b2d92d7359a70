"""What benchmarks/gpu.py found, as figures for its JSON and as a page of tables in Markdown."""

from typing import Any

import timing
from gpu_contestants import THEIRS

DIFFERENCE = 1e-3  # of a trainer's loss on CPU and GPU, relative, after 20 steps at most
# Title: (above, below, target). "best X": the fastest peer at X. A target that is a pair is for
# networks whose products fill the device, and for the others.
RATIOS: dict[str, tuple[str, str, Any]] = {
    "rank-1 / best forward gradient": ("rank-1", "best forward gradient", 0.5),
    "rank-1 / best backprop": ("rank-1", "best backprop", (0.7, None)),
    "rank-1 / own forward": ("rank-1", "forward", 2.1),
    "dense / best forward gradient": ("dense", "best forward gradient", None),
    "dense / best backprop": ("dense", "best backprop", None),
    "rank-1 k=16 / best k=16": ("rank-1 k=16", "best forward gradient k=16", None),
    "dense k=16 / best k=16": ("dense k=16", "best forward gradient k=16", None),
    "forward / best forward": ("forward", "best forward", None),
    "backprop / best backprop": ("backprop", "best backprop", None),
    "peers: backprop / forward": ("best backprop", "best forward", None),
}
LAUNCHES = 20  # of a rank-1 step of an MLP, at most


# --- figures


def content(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a run found, its events turned into rows and ratios."""
    events = found.pop("events")
    devices = [event for event in events if event["event"] == "device"]
    cases = {key(e): e for e in events if e["event"] == "case"}
    rows = {(*key(e), e["name"]): e for e in events if e["event"] == "row"}  # the later one counts
    for lost in (e for e in events if e["event"] == "lost"):
        at = {"case": lost["job"], "precision": lost["precision"], "name": "(what has no row)"}
        rows[(*key(at), at["name"])] = {**at, "failed": lost["reason"]}
    for row in rows.values():
        if "minimum" in row:
            work(row, cases[key(row)])

    def place(row: dict[str, Any]) -> tuple:
        names = cases.get(key(row), {"names": []})["names"]
        return list(keys).index(key(row)), (
            names.index(row["name"]) if row["name"] in names else -1
        )

    keys = dict.fromkeys(map(key, [*cases.values(), *rows.values()]))
    whole = found | {
        "device": without_event(devices[0]) if devices else {},
        "ceilings": [without_event(e) for e in events if e["event"] == "ceiling"],
        "cases": [without_event(e) for e in cases.values()],
        "rows": [without_event(row) for row in sorted(rows.values(), key=place)],
        "compiled": [without_event(e) for e in events if e["event"] == "compiled"],
    }
    return whole | {"ratios": [ratios(whole, case) for case in whole["cases"]]}


def key(event: dict[str, Any]) -> tuple[str, str]:
    return event["case"], event["precision"]


def without_event(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "event"}


def task(name: str) -> str:
    """Return what a contestant does, "backprop" of "torch compiled backprop"."""
    own = name.removeprefix("dualgrad ")
    return (
        own if own != name else next(t for t in sorted(THEIRS, key=len)[::-1] if name.endswith(t))
    )


def work(row: dict[str, Any], case: dict[str, Any]) -> None:
    """Add what a step does in a second: operations of products, and bytes of weights.

    Weights are read once for the forward pass, and read and written by an update; whatever else is
    moved, activations and directions, is not counted.
    """
    kind = task(row["name"])
    named = kind.replace("forward gradient", "dense") if kind not in case["flops"] else kind
    row["flops_per_second"] = case["flops"][named] / row["minimum"]
    passes = 1 if kind == "forward" else 3
    row["weight_bytes_per_second"] = passes * 4 * case["parameters"] / row["minimum"]


def least(whole: dict[str, Any], case: dict[str, Any], name: str) -> float | None:
    """Return the least time of one of dualgrad's contestants, or of "best X" of the peers'."""
    wanted = name.removeprefix("best ")
    own = wanted == name
    times = [
        row["minimum"]
        for row in whole["rows"]
        if key(row) == key(case)
        and "minimum" in row
        and row["name"].startswith("dualgrad ") == own
        and task(row["name"]) == wanted
    ]
    return min(times, default=None)


def ratios(whole: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """Return the ratios of one case, None where a contestant is absent."""
    found: dict[str, Any] = {"case": case["case"], "precision": case["precision"]}
    for title, (above, below, _) in RATIOS.items():
        top, bottom = least(whole, case, above), least(whole, case, below)
        found[title] = None if top is None or bottom is None else top / bottom
    return found


def wrong(whole: dict[str, Any]) -> bool:
    """Whether a test failed, or a trainer's losses on the two devices differ."""
    tests = whole.get("tests", {})
    bad = [row for row in whole.get("trainers", []) if verdict(row) != "agrees"]
    return bool(tests.get("failed") or tests.get("exit_code") or bad)


def verdict(row: dict[str, Any]) -> str:
    """Return what the table says of one trainer."""
    if "failed" in row:
        return row["failed"]
    return "agrees" if row["difference"] <= DIFFERENCE else "differs"


# --- the page


def page(whole: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    device = whole["device"]
    title = device.get("name", "no device was timed")
    parts = [f"# {title}, {whole['date']}", timing.machine_line()]
    if "driver" in device:
        parts.append(
            f"{device['bytes'] / 2**30:.0f} GiB, {device['multiprocessors']} multiprocessors, CUDA "
            f"driver {device['driver']}, runtime {device['runtime']}, CuPy {device['cupy']}"
        )
    parts += [f"{c['instances']} sources compiled for float32, or read from CuPy's cache, in "
              f"{c['seconds']:.1f} s" for c in whole["compiled"] if c["instances"]]  # fmt: skip
    parts += tests_part(whole) + trainers_part(whole) + ceilings_part(whole)
    if whole["cases"] or whole["rows"]:
        parts += ratios_part(whole)
        keys = dict.fromkeys(map(key, [*whole["cases"], *whole["rows"]]))
        parts += [case_part(whole, *at) for at in keys]
    return "\n\n".join(parts)


def markdown(head: list[str], body: list[list[Any]]) -> str:
    """Return a table whose numbers have three digits."""
    lines = [[timing.cell(x).replace("|", "\\|") for x in row] for row in [head, *body]]
    lines.insert(1, ["---"] + ["---:"] * (len(head) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tests_part(whole: dict[str, Any]) -> list[str]:
    if "tests" not in whole:
        return []
    tests = whole["tests"]
    counts = ", ".join(f"{n} {name}" for name, n in sorted(tests["counts"].items())) or "none ran"
    late = "; ended: out of time" if tests["out_of_time"] else ""
    said = ["## Tests of the GPU backend", f"{counts} in {tests['seconds']:.0f} s{late}"]
    if tests["failed"]:
        said.append("\n".join(f"- {name}" for name in tests["failed"][:50]))
    if tests["end"]:
        said.append("\n".join(["```", *tests["end"], "```"]))
    return said


def trainers_part(whole: dict[str, Any]) -> list[str]:
    if "trainers" not in whole:
        return []
    head = ["trainer", "steps", "largest relative difference", "CPU s", "GPU s", ""]
    body = []
    for row in whole["trainers"]:
        seconds = row.get("seconds", {})
        body.append([row["trainer"], row.get("steps"), row.get("difference"), seconds.get("cpu"),
                     seconds.get("device"), verdict(row)])  # fmt: skip
    return [f"## Losses of the first steps, CPU and GPU (at most {DIFFERENCE:g} apart)",
            markdown(head, body)]  # fmt: skip


def ceilings_part(whole: dict[str, Any]) -> list[str]:
    if not whole["ceilings"]:
        return []
    body = [[row["name"], row.get("value"), row["unit"], row.get("failed", "")]
            for row in whole["ceilings"]]  # fmt: skip
    return ["## What the device reaches: a product of square matrices, a copy",
            markdown(["", "", "unit", ""], body)]  # fmt: skip


def ratios_part(whole: dict[str, Any]) -> list[str]:
    targets: list[Any] = ["aim, at most", ""]
    for _, _, target in RATIOS.values():
        targets.append(f"{target[0]} where products fill the device" if isinstance(target, tuple)
                       else target)  # fmt: skip
    body = [[row["case"], row["precision"], *(row[title] for title in RATIOS)]
            for row in whole["ratios"]]  # fmt: skip
    return ["## Ratios of least times; best is the fastest peer",
            markdown(["network and batch", "", *RATIOS], [*body, targets])]  # fmt: skip


def case_part(whole: dict[str, Any], case: str, precision: str) -> str:
    """Return the table of one network."""
    ceiling = {row["name"]: row.get("value") for row in whole["ceilings"]}.get(precision)
    info = next((c for c in whole["cases"] if key(c) == (case, precision)), None)
    size = f", {info['parameters']:,} parameters" if info else ""
    head = ["", "ms, least", "median", "spread", "TFLOP/s", "of ceiling", "GB/s of weights",
            "MB beyond weights", "own launches", ""]  # fmt: skip
    rows = [row for row in whole["rows"] if key(row) == (case, precision)]
    return f"## {case}, {precision}{size}\n\n" + markdown(head, [cells(r, ceiling) for r in rows])


def cells(row: dict[str, Any], ceiling: float | None) -> list[Any]:
    said = row.get("failed") or row.get("note", "")
    if "minimum" not in row:
        return [row["name"], *[None] * 8, said]
    launches = row.get("launches")
    if task(row["name"]) == "rank-1" and row["case"].startswith("mlp") and launches is not None:
        said += f"{'; ' if said else ''}aim: {LAUNCHES} launches"
    rate = row["flops_per_second"] / 1e12
    return [
        row["name"],
        1e3 * row["minimum"],
        1e3 * row["median"],
        row.get("spread"),
        rate,
        rate / ceiling if ceiling else None,
        row["weight_bytes_per_second"] / 1e9,
        row["bytes"] / 1e6 if "bytes" in row else None,
        launches,
        said,
    ]
