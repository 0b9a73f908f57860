"""What the stages pass to each other: Profile and Plan and their parts, frozen and free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

PROFILE_SCHEMA = "tstitch/profile/1"
PLAN_SCHEMA = "tstitch/plan/1"
MAX_SEED = 2**63 - 1
RANDOM_WEIGHTS = "random"
"""What stands in a fingerprint for weights that were made up to measure without the real ones."""
DTYPES = ("float32", "bfloat16", "float16")
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Measure:
    """A time in seconds: the mean of `count` measurements and their standard deviation."""

    mean: float
    std: float
    count: int


@dataclass(frozen=True)
class Setting:
    """The one setting a profile is measured for and a plan is made for."""

    steps: int
    scheduler: str
    guidance: float
    batch_size: int
    size: int
    dtype: str
    device: str
    schedule: str | None = None
    """The denoiser whose noise schedule the trajectory runs on, where they differ; None is the pipeline's own."""
    embeddings: str | None = None
    """`own`: every denoiser's prompts go through its own text encoder; None: all through the largest denoiser's."""
    accelerate: tuple[str, ...] = ()
    """What makes evaluations cheaper, with every parameter: `deepcache:interval=3:branch=0`; see accelerations.py."""
    offload: bool = False
    """Whether the parts wait in host memory and are on the device only in their turn."""
    strength: float | None = None
    """Image-to-image: the share of the steps that are taken, the last ones, from a noised picture; None from noise."""
    inpaint: bool = False
    """Only what a mask covers is drawn."""
    control: str | None = None
    """The ControlNet that steers the denoisers: a name of the zoo, a folder or a hub id."""
    frames: int | None = None
    """Of a video; None draws stills."""
    host: str | None = None
    """The denoiser whose pipeline is run, where the numbers of parameters do not tell which is the largest."""
    compiled: bool = False
    """The denoisers are compiled (torch.compile) before the first call."""

    @property
    def taken(self) -> int:
        """The steps that are really taken, which an allocation shares out: int(steps * strength) in image-to-image."""
        # A strength is written in decimals: 50 * 0.58 is meant to be 29, not 28.999...
        return self.steps if self.strength is None else min(self.steps, int(self.steps * self.strength + 1e-6))

    @property
    def words(self) -> str:
        """All of it, such as `30 of 50 steps of ddim (strength 0.6), guidance 7.5, batch of 1, ... parts in turn`.

        What is not asked for goes without saying, and so does a size of 0, which is one that is not known.
        """
        steps = f"{self.steps} step{'' if self.steps == 1 else 's'} of {self.scheduler}"
        if self.strength is not None:
            steps = f"{self.taken} of {steps} (strength {self.strength:g})"
        said = [steps, f"guidance {self.guidance:g}", f"batch of {self.batch_size}"]
        said += [f"{self.size} x {self.size} px"] if self.size else []
        said += [f"{self.frames} frames"] if self.frames else []
        said += [f"{self.dtype} on {self.device}"]
        said += ["inpainting"] * self.inpaint + ([f"ControlNet {self.control}"] if self.control else [])
        said += [f"noise schedule of {self.schedule}"] if self.schedule else []
        said += [f"pipeline of {self.host}"] if self.host else []
        said += [f"text embeddings: {self.embeddings}"] if self.embeddings else []
        for spec in self.accelerate:
            name, _, parameters = spec.partition(":")
            said.append(f"{name} ({parameters.replace(':', ', ').replace('=', ' ')})")
        said += ["parts in turn"] * self.offload + ["compiled"] * self.compiled
        return ", ".join(said)


@dataclass(frozen=True)
class GivenFile:
    """A file that a picture is made from, as it was named, and what it is known by."""

    kind: str
    """`image`, `mask`, `control` or `lora`."""
    path: str
    digest: str
    scale: float = 1.0
    """How strongly a LoRA is applied."""

    @property
    def words(self) -> str:
        """Such as `image fox.jpg (digest 1f2e)` or `lora ink.safetensors at 0.8 (digest 3c4d)`."""
        how = f" at {self.scale:g}" if self.kind == "lora" else ""
        return f"{self.kind} {self.path}{how} (digest {self.digest})"


@dataclass(frozen=True)
class DenoiserProfile:
    """What one denoiser costs, per evaluation in seconds; a trajectory's first and last evaluation told apart."""

    name: str
    source: str
    revision: str | None
    first_s: Measure
    steady_s: Measure
    last_s: Measure
    switch_s: Measure
    """Extra seconds of the evaluation at which this denoiser takes over from another."""
    parameters: int | None = None
    flops: float | None = None
    """Floating-point operations of one evaluation of the whole batch, guidance included, nothing accelerated."""
    peak_memory_bytes: int | None = None
    """Of calls with this denoiser alone: of the device, with the weights of all that is resident beside it, else of
    the process."""
    cached_s: Measure | None = None
    """An evaluation that is answered from a cache whose rhythm is known; `steady_s` is then a full one."""
    knows: tuple[int, int] | None = None
    """The first and the last step, counted from 1, whose noise level it knows; None for all."""
    embedding: str | None = None
    """The denoiser whose text encoder its prompts go through; None where there is no text."""
    course_s: tuple[float, ...] = ()
    """Mean seconds of each evaluation of this denoiser alone, where a cache decides by what it sees; else empty."""


@dataclass(frozen=True)
class FixedParts:
    """What a call costs besides its evaluations: encoding the prompts, decoding and writing the pictures."""

    encode_s: Measure
    decode_s: Measure
    write_s: Measure


@dataclass(frozen=True)
class Validation:
    """A stitched allocation that the profile was not fitted to: predicted against measured seconds of one call."""

    allocation: tuple[tuple[str, int], ...]
    predicted_s: float
    measured_s: Measure


@dataclass(frozen=True)
class Closeness:
    """How near a denoiser's guided predictions are to the largest one's at the same x_t, per step, noisiest first."""

    cosine: tuple[float, ...]
    """(T,) mean cosine similarity, the paper's figure 3."""
    cosine_std: tuple[float, ...]
    """(T,) its standard deviation over the pictures."""
    rms: tuple[tuple[float, ...], ...]
    """(pictures, T) root of the mean squared difference, in units of the prediction."""


@dataclass(frozen=True)
class Agreement:
    """Agreement with the largest denoiser, measured along trajectories of it."""

    largest: str
    weights: tuple[float, ...]
    """(T,) how far an error of 1 in a step's prediction moves the final latent of unit-variance data."""
    denoisers: dict[str, Closeness]
    """Every denoiser but the largest."""


@dataclass(frozen=True)
class Reference:
    """The trajectory that several settings are held against: of the largest denoiser alone, with nothing cached."""

    denoiser: str
    scheduler: str
    steps: int
    seed: int
    digest: str
    """Of all that it depends on, weights included: losses are on one scale where it is the same."""


@dataclass(frozen=True)
class Coarseness:
    """How far the largest denoiser alone ends from the reference in a profile's setting, by its steps and its cache."""

    reference: Reference
    distance: tuple[float, ...]
    """(pictures,) root of the mean squared difference of the final latents, in standard deviations of theirs."""


@dataclass(frozen=True)
class Fingerprint:
    """What a measurement holds for: machine, versions and weights."""

    device: str
    driver: str
    torch: str
    diffusers: str
    threads: int
    weights: dict[str, str]
    """Denoiser name, `control NAME` for a ControlNet -> digest of its weights or its commit, or RANDOM_WEIGHTS."""

    @property
    def random(self) -> bool:
        """Whether the weights were random: times are true then, and there is nothing to draw with."""
        return RANDOM_WEIGHTS in self.weights.values()


@dataclass(frozen=True)
class Profile:
    """What was measured on one machine for one setting."""

    origin: str
    """`measured` by `tstitch profile`, `imported` from times one already knew, or a published `reference`."""
    family: str
    """The latent space that the denoisers share."""
    created: str
    """UTC time, ISO 8601, by which the newest profile is found."""
    setting: Setting
    evaluations: tuple[tuple[int, int], ...]
    """Evaluations per step, run-length coded as (evaluations, steps): PNDM 50 is ((2, 1), (1, 49))."""
    denoisers: tuple[DenoiserProfile, ...]
    """Cheapest first."""
    fixed: FixedParts
    spread: dict[str, float]
    """Quantiles of (time of a call / its prediction from the means), as {"p50": 1.0, ..., "p99": 1.06}."""
    rounds: int
    steady: bool
    """False when the machine's speed drifted while it was measured, or something else disturbed it: see `unsteady`."""
    stopped: str
    """Why measuring ended: `tight` (the confidence interval is within the tolerance), `time cap` or `imported`."""
    confidence: float
    """Half width of the widest 95 % confidence interval of a whole trajectory, as a share of it."""
    fingerprint: Fingerprint | None
    validation: tuple[Validation, ...] = ()
    notes: str = ""
    agreement: Agreement | None = None
    """None where it was not measured."""
    coarseness: Coarseness | None = None
    """None where the setting was measured by itself, or has noise of its own in every step."""
    unsteady: tuple[str, ...] = ()
    """Why not `steady`, in words: the drift, other processes, throttled clocks."""
    drift: float = 0.0
    """By which share the machine was faster at its fastest than at its slowest, in [0, 1): in quarters of the rounds'
    calls, or but for the waiting for others."""

    def evaluations_per_step(self) -> tuple[int, ...]:
        """Evaluations of each of the T steps, noisiest first."""
        return tuple(n for n, steps in self.evaluations for _ in range(steps))


@dataclass(frozen=True)
class Times:
    """Predicted wall time of one call in seconds."""

    mean: float
    p95: float
    within: float
    """The quantile that is held against the budget; p95 unless another was asked for."""


@dataclass(frozen=True)
class Measured:
    """A metric of a row's pictures: its value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What the measured metrics of a plan's rows hold for; those of another one are not on the same scale."""

    features: str
    """The network whose features were compared: `inception`, or the classifier of a family by the family's name."""
    reference: str
    """The digest of the reference's statistics."""
    prompts: str
    """The digest of the prompts, in their order."""
    pictures: int
    seed: int


@dataclass(frozen=True)
class Row:
    """One line of the lookup table."""

    fractions: dict[str, float]
    steps: dict[str, int]
    allocation: tuple[tuple[str, int], ...]
    """The denoiser of every step, noisiest first, run-length coded."""
    time_s: Times
    compute: float
    """The compute objective: floating-point operations of a trajectory, or its seconds where they are unknown."""
    quality: dict[str, float]
    """Other qualities by name."""
    feasible: bool
    pareto: bool
    loss: float | None = None
    """Predicted distance of the final latent from the largest denoiser's, in standard deviations; lower is better."""
    refused: str | None = None
    """Why the row must not be drawn however long one has: a denoiser would be given noise that it does not know."""
    measured: dict[str, Measured] = field(default_factory=dict)
    """Metrics of its pictures by name, see `metrics.METRICS`; none before `tstitch evaluate`."""
    loss_within: tuple[float, float] | None = None
    """The ends of the 95 % interval of `loss` over the pictures that agreement was measured on; None of one picture."""
    order: str | None = None
    """How the steps are ordered, see `orders.ORDERS`, or `exact`; None is small to large."""


@dataclass(frozen=True)
class Budget:
    """The time a call may take: as it was asked for, in seconds, and the quantile of the call's time it bounds."""

    asked: str
    seconds: float
    quantile: float | None
    """None bounds the mean."""
    margin: float = 0.0
    """Share by which predicted times are taken to be longer, as the machine was unsteady while it was measured."""

    @property
    def plannable_s(self) -> float:
        """Seconds that a prediction may come to, so that there is room for the margin."""
        return self.seconds / (1.0 + self.margin)


@dataclass(frozen=True)
class RunnerUp:
    """The best row within the budget after the chosen one, by what the plan seeks."""

    row: int
    within_noise: bool | None = None
    """Whether the two are no further apart than what they were judged by is uncertain; None where that is not known."""


@dataclass(frozen=True)
class Rival:
    """What could be run instead of the chosen row: something simpler, or the best row of another setting."""

    kind: str
    """`largest alone` (in as many steps as fit), `smallest alone`, `cache` or `other setting`."""
    setting: Setting
    allocation: tuple[tuple[str, int], ...]
    time_s: Times
    loss: float | None
    """On the scale of `Plan.total`; None where it was not measured."""
    profile: str | None
    """The profile it was predicted from; None where there is none for its setting yet."""
    wins: bool
    """Whether it is within the budget and better than the plan's choice by what the plan seeks."""
    measured: dict[str, Measured] = field(default_factory=dict)
    """Metrics of its pictures by name, as far as the plan knows them."""


@dataclass(frozen=True)
class PlannedDenoiser:
    """A denoiser as a plan refers to it, cheapest first."""

    name: str
    source: str
    revision: str | None
    knows: tuple[int, int] | None = None
    embedding: str | None = None


@dataclass(frozen=True)
class Plan:
    """The lookup table for a profile, with the budget and the rows chosen for it."""

    profile: str
    """Where the profile was read from, relative to the plan's folder where it can be."""
    profile_digest: str
    family: str
    setting: Setting
    evaluations: tuple[tuple[int, int], ...]
    denoisers: tuple[PlannedDenoiser, ...]
    fingerprint: Fingerprint | None
    budget: Budget
    objective: str
    increment: float
    combinations: int
    """Fraction combinations enumerated; `rows` holds the distinct ones, or the Pareto rows of a huge table."""
    chosen: int
    """Index into `rows` of the row that `sample` runs."""
    alternatives: tuple[int, ...]
    """Indices of the best rows within the budget, `chosen` first."""
    rows: tuple[Row, ...] = field(default=())
    evaluation: Evaluation | None = None
    """What `measured` of the rows holds for; None before `tstitch evaluate`."""
    least_loss: float | None = None
    """No assignment of denoisers to steps within the budget has a predicted loss below; None where not looked for."""
    runner_up: RunnerUp | None = None
    """None where the table has one feasible row, or what it was judged by has no interval."""
    total: float | None = None
    """The chosen row's predicted distance from the reference that the settings share, its coarseness included."""
    rivals: tuple[Rival, ...] = ()
    compared: int | None = None
    """Pictures that predicted losses were measured on; None where there are none."""

    def evaluations_per_step(self) -> tuple[int, ...]:
        """Evaluations of each of the T steps, noisiest first."""
        return tuple(n for n, steps in self.evaluations for _ in range(steps))
