"""Put a result into docs/benchmarks.md, between its two marks, and its picture beside it.

`python benchmarks/page.py build/bench.json`: the page then shows that run and nothing else. With `-` behind it,
the text is printed instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import plot
from folders import ROOT

PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"
BEGIN, END = "<!-- figures: written by benchmarks/page.py -->", "<!-- end of figures -->"
_FUNCTIONS = 8


def write(result: dict[str, Any]) -> None:
    """Replace the page's figures and its picture."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{figures(result)}\n{END}{after}", encoding="utf-8")
    plot.draw(result, PICTURE)


def figures(result: dict[str, Any]) -> str:
    """The text between the marks."""
    machine = result["machine"]
    measured = {name: m for name, m in result.items() if name != "machine"}
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "grpcio", "numpy"))
    taken = {name: m for name, m in measured.items() if "error" not in m}
    parts = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; {versions}"
        f"{_peer_versions(taken)}; {_dates(measured)}. All processes of a system share the cores; memory that no process had "
        f"before is filled at {machine['first_touch_gib_per_second']:g} GiB/s; load before the run: {machine['load_before']:g}.",
        "![The table below as bars](benchmarks.svg)",
        _overview(measured),
        *(section(taken[name]["detail"]) for name, section in _SECTIONS.items() if name in taken),
    ]
    return "\n\n".join(part for part in parts if part)


def _overview(measured: dict[str, Any]) -> str:
    others = list(dict.fromkeys(system for m in measured.values() for system in m.get("peers", {})))
    rows = []
    for name, m in measured.items():
        if "error" in m:
            rows.append([name, m["error"].splitlines()[0], "", "", "no", *[""] * len(others)])
            continue
        met = ("yes" if m["met"] else "no") if m["goal"] else ""
        beside = [_beside(m, system) for system in others]
        rows.append([name, m["title"], f"{m['value']:g} {m['unit']}", m["goal"], met, *beside])
    return _table(["", "measure", "fedjob", "goal", "met", *(plot.NAMES.get(o, o) for o in others)], rows)


def _dates(measured: dict[str, Any]) -> str:
    """When the measures were taken: figures of different runs are not to be compared."""
    names: dict[str, list[str]] = {}
    for name, m in measured.items():
        names.setdefault(m["taken"], []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return "runs of " + "; ".join(f"{date} ({', '.join(its)})" for date, its in sorted(names.items()))


def _beside(measure: dict[str, Any], system: str) -> str:
    if system not in measure["peers"]:
        return ""
    value = measure["peers"][system]
    ratio = measure["value"] / value if measure["unit"].endswith("/s") else value / measure["value"]
    return f"{value:g} {measure['unit']} ({ratio:.3g} ×)"


def _peer_versions(taken: dict[str, Any]) -> str:
    found: dict[str, str] = {}
    for m in taken.values():
        for name, peer in m["detail"].get("peers", {}).items():
            package = {"flower": "flwr"}.get(name, name)
            found[plot.NAMES.get(name, name)] = peer["versions"][package]
    return "".join(f", {name} {version}" for name, version in found.items())


def _p1(d: dict[str, Any]) -> str:
    rows = [[what, f"{rate:g}", f"{d['seconds'][what]['min']:g}–{d['seconds'][what]['max']:g}"]
            for what, rate in d["gib_per_second"].items()]  # fmt: skip
    return "**P1**, medians and spread:\n\n" + _table(["", "GiB/s", "seconds"], rows)


def _p2(d: dict[str, Any]) -> str:
    runs = {"fedjob": (d["round_seconds"], d["usage"])}
    runs |= {plot.NAMES[name]: (peer["round_seconds"], peer["usage"]) for name, peer in d["peers"].items()}
    if d["large"] and "usage" in d["large"]:
        runs[f"fedjob, {d['large']['size']}"] = (d["large"]["round_seconds"], d["large"]["usage"])
    rows = []
    for system, (seconds, usage) in runs.items():
        for i, (role, use) in enumerate(usage.items()):
            cpu = use["cpu_user_seconds"] + use["cpu_system_seconds"]
            spread = f"{seconds['min']:g}–{seconds['max']:g}"
            rows.append(["" if i else system, "" if i else spread, f"{role} ({use['processes']:g})",
                         f"{use['peak_anonymous_mib']:,.0f}", f"{cpu:.1f}"])  # fmt: skip
    head = ["", "seconds of a round", "processes", "peak of anonymous memory, MiB", "CPU seconds of the job"]
    return "**P2**, memory and CPU by role, all processes of a role together:\n\n" + _table(head, rows)


def _p5(d: dict[str, Any]) -> str:
    rows = [
        [r["size"], r["clients"], r["server_peak_mib"], r["client_peak_above_before_mib"], r["client_beyond_model_mib"]]
        for r in d["combinations"]
    ]
    head = ["model", "clients", "server, MiB", "client above what it held, MiB", "of that beyond the model, MiB"]
    skipped = "".join(f"\n\nSkipped: {cell}: {why}." for cell, why in d["skipped"].items())
    return "**P5**, anonymous memory:\n\n" + _table(head, rows) + skipped


def _p6(d: dict[str, Any]) -> str:
    rows = [
        [t["way"], t["cuts"], f"{t['gib_per_second']:g}", f"{t['peak_mib']['site']:g}", f"{t['peak_mib']['server']:g}",
         "yes" if t["digests_right"] else "no", f"{t['again_max_mib']:g}", f"{sum(t['again_mib']):g}"]
        for t in d["transfers"]
    ]  # fmt: skip
    head = [
        "",
        "cuts",
        "GiB/s",
        "site, MiB",
        "server, MiB",
        "digest right",
        "again for a cut, at most, MiB",
        "in all, MiB",
    ]
    return "**P6**, resident memory, and what cuts cost:\n\n" + _table(head, rows)


def _p7(d: dict[str, Any]) -> str:
    sizes = ", ".join(f"{s:g} s at {size}" for size, s in d["seconds_per_gib"].items())
    clients = ", ".join(f"{s:g} s with {n}" for n, s in d["seconds_per_client"].items())
    grown = f"{d['per_client_growth_percent']:+g} %"
    return f"**P7**: a round takes, per GiB, {sizes}; per client, with a model of {d['per_client_model']}, {clients} ({grown})."


def _p9(d: dict[str, Any]) -> str:
    cpu, idle = d["cpu_ms_per_round"], d["idle_cpu_percent_of_a_core"]
    return (
        f"**P9**: a round of {d['sites']} sites takes {d['round_ms']:g} ms and {cpu['server']:g} ms of CPU in the server, "
        f"{cpu['client']:g} ms in all clients together. The server holds {d['server_peak_anonymous_mib']:g} MiB, a client "
        f"{d['client_peak_anonymous_mib_mean']:g} MiB. While all but one wait, the server uses {idle['server']:g} % of a core, all "
        f"clients together {idle['client']:g} %."
    )


def _profile(d: dict[str, Any]) -> str:
    steps = ", ".join(f"{name} {s:g} s" for name, s in d["site_seconds"].items())
    cpu = "; ".join(
        f"{r} {c['user']:g} s user, {c['system']:g} s system" for r, c in d["cpu_seconds_per_round"].items()
    )
    text = (
        f"**Profile** of a round of {d['round_seconds']['median']:g} s. A site: {steps}. CPU of a round: {cpu}; on average "
        f"{d['cores_busy']:g} cores are busy."
    )
    if not {"server", "client"} <= d["shares"].keys():
        return text
    shares = [list(d["shares"][role]["functions"].items())[:_FUNCTIONS] for role in ("server", "client")]
    lines = zip_longest(*shares, fillvalue=("", 0.0))  # a role that was little at work has few
    rows = [[cell for name, share in line for cell in (name, f"{share:g} %" if name else "")] for line in lines]
    return text + " What its processors do:\n\n" + _table(["server", "", "client", ""], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


_SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "P1": _p1, "P2": _p2, "P5": _p5, "P6": _p6, "P7": _p7, "P9": _p9, "profile": _profile,
}  # fmt: skip


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if sys.argv[2:] == ["-"]:
        print(figures(told))
    else:
        write(told)
