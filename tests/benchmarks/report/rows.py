"""All 66 rows of S, B and XL: predicted against measured, the choice for ten budgets, the pairs and the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from tests.benchmarks.common import BASE, LARGE, SMALL, words
from tests.benchmarks.report import paper, ways
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.engine import CLASSES, Study, agreement_of_classes, reference_of
from tests.benchmarks.report.figure import (
    FREE,
    PAPER_PAIR,
    Figure,
    Line,
    Point,
    Verdict,
    free_start,
    paper_pair,
    surely,
)
from tests.benchmarks.report.measures import (
    Floats,
    compared,
    correlation_lead,
    distance,
    rank_correlation,
    replicas,
    resampled,
    sums,
)
from tests.benchmarks.report.studies import ALL, fraction, table
from tstitch_cli.allocation import Allocation
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.objectives import compute_of, loss_of
from tstitch_cli.quality.statistics import Described
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Measured, Profile

BUDGETS = 10
CLOSE = 1.03
"""How many times the best feasible row's distance a chosen row's may be."""
GOAL, BETTER = 0.9, 0.95
CLASSES_SEEN = range(CLASSES // 2)
"""Where classes are disjoint too: what predicts sees these, what is measured are the others."""
PREDICTING = 40
"""Pictures from which a loss is predicted then."""


def figures(bench: Bench) -> list[Figure]:
    """Prediction, the ways of predicting, choice, pairs and the front of three models."""
    rows = Rows(bench)
    made = [rows.prediction(), rows.choice(), rows.pairs(), rows.front()]
    if rows.profile.agreement is not None:
        made.insert(1, ways.figure(bench, rows.study, rows.profile, rows.resampled, rows.shown))
    return made


@dataclass(frozen=True)
class Rows:
    """The table's rows, drawn, and what was predicted of them."""

    bench: Bench

    @cached_property
    def study(self) -> Study:
        """All 66 of them."""
        return table(self.bench.at(steps=self.bench.scale.rows_steps), self.bench.scale.rows_pictures)

    @cached_property
    def described(self) -> dict[Allocation, Described]:
        """Every row's pictures."""
        return self.bench.studio.described(self.study)

    @cached_property
    def distances(self) -> dict[Allocation, Floats]:
        """Every row's distance, (1 + G,)."""
        return self.bench.replicas(self.described)

    @cached_property
    def resampled(self) -> Floats:
        """(1 + RESAMPLES, rows): see `measures.resampled`."""
        return resampled(self.bench.studio.reference.gaussian, [sums(each) for each in self.described.values()])

    @cached_property
    def halves(self) -> dict[Allocation, tuple[float, Floats]]:
        """Every row's distance by one half of its pictures, by which rows are picked, and (1 + G,) by the other.

        The other judges those that were picked: what stands out among many rows on the same pictures is flattered.
        """
        gaussian, half = self.bench.studio.reference.gaussian, self.study.pictures // 2
        return {
            row: (float(replicas(gaussian, sums(each[:half]))[0]), replicas(gaussian, sums(each[half:])))
            for row, each in self.described.items()
        }

    @cached_property
    def profile(self) -> Profile:
        """Of seed 0."""
        return self.bench.profile(ALL, self.study.setting)

    @property
    def shown(self) -> str:
        """What all of these figures show."""
        return (
            f"{len(self.study.allocations)} rows of {', '.join(ALL)} in tenths, {self.study.pictures:,} pictures "
            + (f"each; {self.study.setting.words}.")
        )

    def prediction(self) -> Figure:
        """Predicted loss against measured distance, and their rank correlation."""
        agreement = self.profile.agreement
        if agreement is None:
            return Figure("prediction", "Predicted loss", self.shown, verdicts=(Verdict(None, "No agreement."),))
        loss = {row: float(loss_of(agreement, row).mean()) for row in self.distances}
        compute = [-compute_of(self.profile, row) for row in loss]
        by_loss = rank_correlation(list(loss.values()), self.resampled)
        by_compute = rank_correlation(compute, self.resampled)
        lead = correlation_lead(list(loss.values()), compute, self.resampled)
        other = self._other_classes()
        groups = {SMALL + " and " + LARGE: {SMALL, LARGE}, SMALL + " and " + BASE: {SMALL, BASE}}
        groups |= {BASE + " and " + LARGE: {BASE, LARGE}, "all three": set(ALL)}
        left, lines = dict(loss), []
        for label, names in groups.items():
            rows = [row for row in left if {name for name, _ in row} <= names]
            points = tuple(Point.of(left.pop(row), distance(self.distances[row])) for row in rows)
            lines.append(Line(label, points, joined=False))
        return Figure(
            "prediction",
            "Predicted loss against measured Fréchet distance",
            f"{self.shown} Losses are predicted from the profile (seed 0), pictures are of another seed.",
            "predicted loss",
            "Fréchet distance",
            tuple(lines),
            verdicts=(
                _goal("Rank correlation (Spearman) of predicted loss with distance", by_loss),
                _goal("With other classes in the measurement than in the prediction", other),
                Verdict(
                    surely(lead.low > 0, lead.high < 0),
                    f"It ranks better than 'more compute is better', with a correlation of {_said(by_compute)}: by "
                    f"{_said(lead)}.",
                ),
            ),
        )

    def _other_classes(self) -> Measured:
        """The rank correlation where both seeds and classes differ between prediction and measurement."""
        family = self.bench.studio.load(ALL, self.study.setting)
        agreement = agreement_of_classes(family, CLASSES_SEEN, PREDICTING)
        test, labels = self.bench.test()
        unseen = labels >= len(CLASSES_SEEN)
        reference = reference_of(_only(test, unseen.tolist())).gaussian
        drawn = [i % CLASSES >= len(CLASSES_SEEN) for i in range(self.study.pictures)]
        parts = [sums(_only(each, drawn)) for each in self.described.values()]
        assert agreement is not None
        predicted = [float(loss_of(agreement, row).mean()) for row in self.described]
        return rank_correlation(predicted, resampled(reference, parts))

    def choice(self) -> Figure:
        """The row chosen for each of ten budgets against the best feasible one."""
        model = CostModel(self.profile)
        least, most = (model.mean_s(model.alone(name)) for name in (SMALL, LARGE))
        # What is judged is the choice; a machine with other work to do is no reason to plan with a margin here.
        steady = replace(self.profile, steady=True, unsteady=())
        table, ratios, again = [], [], []
        for number in range(1, BUDGETS + 1):
            budget = least + (most - least) * number / BUDGETS
            plan = make_plan(steady, budget=parse_budget(f"{budget * 1.000001:.9f}s"), quantile=None)
            chosen = plan.rows[plan.chosen].allocation
            feasible = [row.allocation for row in plan.rows if row.feasible]
            best = min(feasible, key=lambda row: self.distances[row][0])
            ratio = compared(np.divide, self.distances[chosen], self.distances[best])
            by_measure = min(feasible, key=lambda row: self.halves[row][0])
            rival = min(feasible, key=lambda row: self.halves[row][1][0])
            judged = compared(np.divide, self.halves[by_measure][1], self.halves[rival][1])
            ratios.append(ratio)
            again.append(judged)
            table.append(
                (
                    f"{budget / most:.0%}",
                    words(chosen),
                    f"{self.distances[chosen][0]:.3f}",
                    words(best),
                    f"{self.distances[best][0]:.3f}",
                    f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
                    f"{judged.value:.3f} ({judged.low:.3f} to {judged.high:.3f})",
                )
            )
        header = ("budget", "chosen by predicted loss", "distance", "best measured", "distance", "ratio", "by measure")
        points = tuple(Point.of(n / BUDGETS, ratio) for n, ratio in enumerate(ratios, 1))
        return Figure(
            "choice",
            "The row chosen for each of ten budgets",
            f"{self.shown} Budgets go from {SMALL} alone to {LARGE} alone in ten equal parts of their time. The best "
            "measured row is picked by the same pictures that it is measured by, which flatters it. Last column: the "
            "row that has the least distance on one half of the pictures, held on the other half against the best "
            "there, which is flattered too. A statement holds where intervals leave no doubt.",
            f"budget between {SMALL} and {LARGE} alone",
            "distance of the chosen row / of the best feasible one",
            (Line("chosen by predicted loss", points),),
            verdicts=(
                close("Chosen by predicted loss", ratios),
                close("Chosen by what was measured on other pictures", again),
            ),
            table=(header, *table),
        )

    def pairs(self) -> Figure:
        """Figures 1 and 5: two denoisers, by the share of the steps that the smaller takes."""
        steps, lines, verdicts = self.study.setting.steps, [], []
        for small, large in ((SMALL, LARGE), (SMALL, BASE), (BASE, LARGE)):
            found = {t / 10: self.distances[fraction(small, large, t, steps)] for t in range(11)}
            name = f"{small}, then {large}"
            lines.append(Line(name, tuple(Point.of(f, distance(each)) for f, each in found.items())))
            verdicts.append(free_start(name, found))
        return Figure(
            "pairs",
            "Figures 1 and 5: pairs",
            self.shown,
            "share of the first steps by the smaller",
            "Fréchet distance",
            tuple(lines),
            (paper_pair(),),
            PAPER_PAIR,
            tuple(verdicts),
        )

    def front(self) -> Figure:
        """Figure 6: all rows in time and distance, and what three models bring."""
        model, size = CostModel(self.profile), self.study.setting.batch_size
        ms = {row: model.mean_s(row) / size * 1e3 for row in self.distances}
        alone = {name: model.alone(name) for name in ALL}
        best = pareto(ms, {row: float(each[0]) for row, each in self.distances.items()})

        def points(rows: list[Allocation]) -> tuple[Point, ...]:
            return tuple(Point.of(ms[row], distance(self.distances[row])) for row in sorted(rows, key=ms.__getitem__))

        def named(name: str) -> Point:
            return Point.of(ms[alone[name]], distance(self.distances[alone[name]]), name)

        published = tuple(Point(s / 8 * 1e3, fid, fid, fid, f"DiT-{name}") for name, (s, fid) in paper.ALONE.items())
        return Figure(
            "front",
            "Figure 6: three models",
            f"{self.shown} Times are those that the profile predicts for calls of {size}.",
            "ms a picture",
            "Fréchet distance",
            (
                Line("every row", points([row for row in ms if row not in best]), joined=False),
                Line("Pareto front", points(best)),
                Line("one model alone", tuple(map(named, ALL)), joined=False),
            ),
            (Line("one model alone", published, joined=False),),
            "Right: the paper's three models alone. Of their 66 rows it says that the best is "
            f"{paper.THREE_MODELS_FASTER} times faster than the large model at its FID (9.21 against 9.19).",
            (
                faster(ms, self.halves, alone[LARGE]),
                three_models(ms, self.halves),
                sizes([self.distances[alone[name]] for name in ALL]),
            ),
        )


def close(how: str, ratios: Sequence[Measured]) -> Verdict:
    """Whether rows chosen in some way are near enough to the best: their `ratios` of distances, a budget each."""
    within, above = (sum(ratio.value <= CLOSE for ratio in ratios), sum(ratio.low > CLOSE for ratio in ratios))
    return Verdict(
        surely(all(ratio.high <= CLOSE for ratio in ratios), above > 0),
        f"{how}, every row is within {CLOSE - 1:.0%} of the best measured feasible one: by their values {within} of "
        f"{len(ratios)} are, the worst being {max(ratio.value for ratio in ratios):.3f} times as far; by their "
        f"intervals {sum(ratio.high <= CLOSE for ratio in ratios)} surely are, {above} surely not.",
    )


def faster(
    ms: Mapping[Allocation, float], halves: Mapping[Allocation, tuple[float, Floats]], large: Allocation
) -> Verdict:
    """Whether a row that is as much faster as the paper's is as near as the large model alone."""
    fast = [row for row in ms if ms[large] >= paper.THREE_MODELS_FASTER * ms[row]]
    goal = f"at least {paper.THREE_MODELS_FASTER} times faster than {LARGE} alone"
    if not fast:
        return Verdict(False, f"No row is {goal}.")
    picked = min(fast, key=lambda row: halves[row][0])
    ratio = compared(np.divide, halves[picked][1], halves[large][1])
    return Verdict(
        surely(ratio.high <= FREE, ratio.low > FREE),
        f"A row {goal} is as near: of these {words(picked)} ({ms[large] / ms[picked]:.2f} times faster) is nearest on "
        f"one half of the pictures; on the other half it is {_said(ratio)} times as far as {LARGE}.",
    )


def three_models(ms: Mapping[Allocation, float], halves: Mapping[Allocation, tuple[float, Floats]]) -> Verdict:
    """Whether three models are nearer than any one or two in as little time."""
    fewer = [row for row in ms if len({name for name, _ in row}) < len(ALL)]
    as_cheap = {row: [each for each in fewer if ms[each] <= ms[row]] for row in ms if row not in fewer}
    picked = [row for row, rivals in as_cheap.items() if all(halves[row][0] < halves[each][0] for each in rivals)]
    ratios = {row: [compared(np.divide, halves[row][1], halves[each][1]) for each in as_cheap[row]] for row in picked}
    nearer = sum(all(ratio.high < 1 for ratio in each) for each in ratios.values())
    not_nearer = sum(any(ratio.low > 1 for ratio in each) for each in ratios.values())
    return Verdict(
        surely(nearer > 0, bool(picked) and not_nearer == len(picked)),
        f"Three models bring something: of {len(as_cheap)} rows of three models, {len(picked)} are nearer than every "
        f"row of fewer models that is as fast, on one half of the pictures; on the other half {nearer} of these surely "
        f"are, {not_nearer} surely not.",
    )


def sizes(alone: Sequence[Floats]) -> Verdict:
    """Whether each model alone is told apart from the next larger one; distances (1 + G,), smallest model first."""
    ratios = [compared(np.divide, small, large) for small, large in pairwise(alone)]
    return Verdict(
        surely(all(each.low > FREE for each in ratios), any(each.high <= FREE for each in ratios)),
        f"The three sizes are told apart: each is above {FREE:.2f} times the distance of the next larger: "
        f"{' and '.join(map(_said, ratios))}.",
    )


def pareto(cost: Mapping[Allocation, float], loss: Mapping[Allocation, float]) -> list[Allocation]:
    """Rows than which none is cheaper and nearer, cheapest first."""
    front: list[Allocation] = []
    for row in sorted(cost, key=lambda row: (cost[row], loss[row])):
        if not front or loss[row] < loss[front[-1]]:
            front.append(row)
    return front


def _only(described: Described, which: list[bool]) -> Described:
    return Described(
        *(getattr(described, part)[which] for part in ("features", "probabilities", "clip", "hits")),
    )


def _goal(what: str, found: Measured) -> Verdict:
    agrees = surely(found.low >= GOAL, found.high < GOAL)
    told = {
        True: f"the better goal {BETTER} is surely reached" if found.low >= BETTER else f"the goal {GOAL} is reached",
        False: f"the goal {GOAL} is missed",
        None: f"the value is {'above' if found.value >= GOAL else 'below'} the goal {GOAL}, which is in the interval",
    }
    return Verdict(agrees, f"{what}: {_said(found)}; {told[agrees]}.")


def _said(found: Measured) -> str:
    return f"{found.value:.3f} (95 % interval {found.low:.3f} to {found.high:.3f})"
