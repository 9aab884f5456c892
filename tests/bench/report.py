#!/usr/bin/env python3
"""Writes docs/benchmarks.md and its charts from what tests/bench/bench.py measured: report.py FILE...

Several files are runs on machines of one kind, the newest first: what one of them left out comes from another.
"""

import collections
import html
import json
import os
import statistics
import sys

from bench import DISK_TEXTS, LINKS, MIB, ROOT, TOOL_TEXTS

# Where the page and its charts go.
DOCS = os.environ.get("BENCH_DOCS", os.path.join(ROOT, "docs"))
LINK_TEXTS = {"200mbit": "200 Mbit/s", "1gbit": "1 Gbit/s", "unshaped": "unshaped"}
PASS_TEXTS = ["first pass", "second pass (50 MiB changed)"]
# What the mover's documentation allows: processes of backup and of restore, and what surrounds them (MiB).
MEMORY = 2 * 192 + 2 * 256 + 2 * 128


def group(results, **wanted):
    return [r for r in results if all(r[key] == value for key, value in wanted.items())]


def median(results, key):
    return statistics.median(r[key] for r in results)


def spread(results, key):
    values = [r[key] for r in results]
    return f"{min(values):.1f}–{max(values):.1f} of {len(values)}" if len(values) > 1 else "one run"


def best_peer(results):
    """The fastest of the others by its median; none where only we ran."""
    walls = {tool: median(group(results, tool=tool), "wall") for tool in {r["tool"] for r in results}}
    return min(((w, t) for t, w in walls.items() if not t.startswith("ours")), default=(None, None))


def limit(report, disk, link):
    """The least that the link takes for what a fast compressor leaves of the disk."""
    rate = LINKS[link]
    return None if rate is None else report["disks"][disk]["compressed"] * 8 / (rate * 1e6)


def ratio(value, of):
    return f"{value / of:.2f}" if of else "–"


def table(report, results, disk, link, number):
    peer, floor = best_peer(results)[0], limit(report, disk, link) if number == 0 else None
    lines = ["| tool | wall s (median) | spread | CPU s | peak RSS MiB | sent MiB | received MiB | sent back MiB "
             "| to the best peer | to the limit |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
    tools = sorted({r["tool"] for r in results}, key=lambda tool: median(group(results, tool=tool), "wall"))
    for tool in tools:
        own = group(results, tool=tool)
        wall = median(own, "wall")
        cells = [f"`{tool}`", f"{wall:.1f}", spread(own, "wall"), f"{median(own, 'cpu'):.1f}",
                 *(f"{median(own, key) / MIB:.0f}" for key in ("peak_rss", "sent", "received", "back")),
                 ratio(wall, peer), ratio(wall, floor)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def chart(results, title):
    """Bars of the medians, ours in another colour."""
    tools = sorted({r["tool"] for r in results}, key=lambda tool: median(group(results, tool=tool), "wall"))
    walls = [median(group(results, tool=tool), "wall") for tool in tools]
    height, scale = 40 + 26 * len(tools), 420 / max(walls)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" font-family="sans-serif" font-size="13">',
           f'<rect width="640" height="{height}" fill="#fff"/>',
           f'<text x="10" y="22" font-weight="bold">{html.escape(title)}</text>']
    for row, (tool, wall) in enumerate(zip(tools, walls)):
        y, width = 36 + 26 * row, wall * scale
        colour = "#1f6feb" if tool.startswith("ours") else "#9aa4b2"
        out += [f'<text x="118" y="{y + 14}" text-anchor="end">{tool}</text>',
                f'<rect x="126" y="{y}" width="{width:.1f}" height="19" fill="{colour}"/>',
                f'<text x="{132 + width:.1f}" y="{y + 14}">{wall:.1f} s</text>']
    return "\n".join([*out, "</svg>", ""])


def verdict(met, text):
    return f"- **{'Met' if met else 'Missed'}**: {text}"


def not_slower(report, link, peers, text):
    """Whether we are not slower than the fastest of some peers over the disk with files."""
    results = group(report["results"], disk="files", link=link, **{"pass": 0})
    own = group(results, tool="ours")
    others = {t: median(group(results, tool=t), "wall") for t in peers if group(results, tool=t)}
    if not own or not others:
        return f"- Not measured: {text}."
    wall, (peer, best) = median(own, "wall"), min(others.items(), key=lambda item: item[1])
    return verdict(wall <= best, f"{text}: {wall:.1f} s, `{peer}` {best:.1f} s ({wall / best:.2f}x).")


def targets(report):
    """Every target of the design, with what was measured."""
    results = group(report["results"], disk="files")
    peers = [tool for tool in TOOL_TEXTS if not tool.startswith("ours")]
    yield not_slower(report, "200mbit", peers, "at 200 Mbit/s not slower than the fastest peer")
    slow = group(results, link="200mbit", tool="ours", **{"pass": 0})
    if slow:
        wall, floor = median(slow, "wall"), limit(report, "files", "200mbit")
        yield verdict(wall <= 1.2 * floor, f"at 200 Mbit/s within 1.2x of the limit: {wall:.1f} s, limit {floor:.1f} s "
                                           f"({wall / floor:.2f}x).")
    yield not_slower(report, "1gbit", ["nbdcopy", "qemu-img"],
                     "at 1 Gbit/s not slower than `nbdcopy` and `qemu-img` on a block device")
    for number, of in ((0, "restic"), (1, None)):
        own = group(results, tool="ours", **{"pass": number})
        other = group(results, tool="restic", **{"pass": number})
        if own and of and other:
            share = median(own, "sent") / median(other, "sent")
            yield verdict(share <= 1.05, f"bytes sent in the first pass within 5 % of plain restic: "
                                         f"{median(own, 'sent') / MIB:.0f} MiB to {median(other, 'sent') / MIB:.0f} MiB "
                                         f"({share:.2f}x).")
        if own and not of:
            # The changes are random bytes: they do not shrink.
            share = median(own, "sent") / (50 * MIB / report["scale"])
            yield verdict(share <= 1.1, f"bytes sent in the second pass within 1.1x of the changed blocks (50 MiB, not "
                                        f"compressible): {median(own, 'sent') / MIB:.0f} MiB ({share:.2f}x).")
    own = [r for r in report["results"] if r["tool"] == "ours"]
    if own:
        peak = max(r["peak_rss"] for r in own) / MIB
        yield verdict(peak <= MEMORY, f"memory of both movers together within the formula ({MEMORY} MiB): {peak:.0f} MiB.")
    told = [r for r in group(results, tool="ours", **{"pass": 0}) if "own_cpu_of" in r]
    if told:
        agents = sum(sum(r["own_cpu_of"].values()) for r in told)
        children = sum(r["cpu"] for r in told) - agents
        yield verdict(agents <= 0.15 * children, f"CPU of the movers themselves under 15 % of their restic children's: "
                                                 f"{agents:.1f} to {children:.1f} s ({agents / children:.0%}).")
    else:
        yield "- Not measured: CPU of the movers themselves beside their restic children's."


def ran(run):
    """When one run was made, of what, and how quiet the machine was."""
    machine, loads = run["machine"], [r["load"] for r in run["results"]]
    return (f"- {run['date']}, commit {machine['commit']}, mover: "
            + ("release build" if machine["built_as"] == "release" else f"**{machine['built_as']}**")
            + f"; rounds: {1 + max(r['round'] for r in run['results'])}, interleaved; load average {min(loads):.1f} to "
            f"{max(loads):.1f}, before it {run['load_before']}; figures: `{run['name']}`."
            + (" **The machine was loaded by other work**: times are upper bounds, and "
               "which tool is faster is not proven by them. Bytes are exact." if min(loads) > machine["cores"] else ""))


def joined(runs):
    """Several runs as one."""
    results = [r for run in runs for r in run["results"]]
    # What one run left out and another made up for was not left out.
    rounds = collections.Counter(name_of(r) for r in results if r["pass"] == 0)
    left = {name_of(case) for run in runs for case in run["left_out"]}
    left = sorted(name for name in left if rounds[name] < max(rounds.values(), default=0))
    disks = {name: disk for run in reversed(runs) for name, disk in run["disks"].items()}
    return {**runs[0], "runs": runs, "results": results, "left_out": left,
            "disks": {name: disks[name] for name in DISK_TEXTS if name in disks}}


def document(report):
    machine, results = report["machine"], report["results"]
    yield from [
        "# Benchmarks", "",
        "Written by `make bench`; do not edit. It moves a disk from one network namespace to another, by our movers and by",
        "what people would use instead, and compares the result byte by byte with the source after each pass; a difference",
        "ends the benchmark.", "",
        "## Machine", "",
        f"- {machine['cores']} cores of {machine['cpu']}, {machine['memory'] / (1 << 30):.0f} GiB of memory, kernel {machine['kernel']}.",
        *(ran(run) for run in report["runs"]),
        "- 20 ms of delay: "
        + ("added where a link is shaped." if machine["delay_20ms"] else "**not added**, this kernel has no netem."), "",
        "| program | version |", "|---|---|",
        *(f"| {tool} | {text} |" for tool, text in machine["versions"].items()), "",
        "## How it is measured", "",
        "Source, store and target are namespaces on one bridge; a link limits what each of them sends and what each of them",
        "receives. The store is versitygw over TLS on a tmpfs. All of them share the machine's cores, so who compresses pays",
        "here for both sides and the store. Sources and targets are loop devices, which do not tell where holes are; the cases",
        "with `-file` read a sparse file instead, whose holes are known. Wall time ends when the target is on its disk (fsync).",
        "CPU is user and system time of all processes of a tool, without the store; peak RSS is their sum, looked at ten times",
        "a second. *Sent* is what left the source, *received* what reached the target, *sent back* the rest at those two.",
        "Making a repository is not counted, neither for us nor for restic. The limit is what `zstd -3` makes of the disk, over",
        "the link's rate. Peers without a second pass would send everything again.", "",
        *(f"- `{tool}`: {text}." for tool, text in TOOL_TEXTS.items() if group(results, tool=tool)), "",
        "## Targets", "", *targets(report), ""]
    for disk in report["disks"]:
        known = report["disks"][disk]
        yield from [f"## Disk: {DISK_TEXTS[disk]}", "",
                    f"{known['bytes'] / MIB:.0f} MiB, {known['data'] / MIB:.0f} MiB of them data, "
                    f"{known['compressed'] / MIB:.0f} MiB by zstd.", ""]
        for link in LINKS:
            for number, text in enumerate(PASS_TEXTS):
                part = group(results, disk=disk, link=link, **{"pass": number})
                if part:
                    title = f"{LINK_TEXTS[link]}, {text}"
                    image = f"benchmarks/{disk}-{link}-{number}.svg"
                    with open(os.path.join(DOCS, image), "w") as file:
                        file.write(chart(part, f"{disk}: {title}: seconds, less is better"))
                    yield from [f"### {title}", "", f"![{disk}, {title}]({image})", "",
                                *table(report, part, disk, link, number), ""]
    if report["left_out"]:
        names = ", ".join(report["left_out"])
        yield from ["## Left out", "", f"Time was up before (all or some rounds): {names}.", ""]


def name_of(case):
    return f"{case['disk']}/{case['link']}/{case['tool']}"


def load(path):
    with open(path) as file:
        run = json.load(file)
    whole = os.path.abspath(path)
    return {**run, "name": os.path.relpath(whole, ROOT) if whole.startswith(ROOT) else os.path.basename(path)}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    report = joined([load(path) for path in sys.argv[1:]])
    charts = os.path.join(DOCS, "benchmarks")
    os.makedirs(charts, exist_ok=True)
    for name in os.listdir(charts):
        os.remove(os.path.join(charts, name))
    text = "\n".join(document(report)).rstrip() + "\n"
    page = os.path.join(DOCS, "benchmarks.md")
    with open(page, "w") as file:
        file.write(text)
    print(page)


if __name__ == "__main__":
    main()
