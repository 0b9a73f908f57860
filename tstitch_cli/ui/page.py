"""The page: one column of controls, the Pareto plot with the chosen row, and the pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from tstitch_cli.commands.plan_words import counted
from tstitch_cli.plotting.plots import pareto_svg
from tstitch_cli.ui import words
from tstitch_cli.ui.session import Known, Session, Tell
from tstitch_cli.ui.stopping import StoppedError

Updates = dict[Any, Any]
"""Component -> its new value, or itself with new properties."""
Subject = tuple[str, object]
"""The prompt and the seed of the pictures and the sweep that are shown."""
MACHINE = "machine"
"""The queue of all that needs the machine for itself."""
SMOOTH = 128
"""Pixels from which a picture is enlarged smoothly."""
START = 0.5
"""Share of the largest denoiser's time that the slider starts at."""
KEPT_S = 3600
"""Seconds after which Gradio's copies of files are removed."""
PROGRESS = gr.Progress()
"""Gradio puts the one of the event in its place."""
TITLE = "<h1>tstitch</h1><p>Pictures within the time you choose: a small model draws first, a large one last.</p>"
STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def theme() -> Any:
    """Calm colours, and the fonts that the reader's machine has."""
    return gr.themes.Base(
        primary_hue="green",
        neutral_hue="slate",
        radius_size="md",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )


class Page:
    """The components of the page of a session, and what happens when one is used."""

    def __init__(self, session: Session) -> None:
        self.session = session
        labels = list(session.choices)
        with gr.Blocks(title="tstitch", analytics_enabled=False, fill_width=True, delete_cache=(KEPT_S,) * 2) as blocks:
            gr.HTML(TITLE, elem_id="title")
            with gr.Row():
                with gr.Column(scale=2, min_width=330, elem_id="controls"):
                    self.family = gr.Dropdown(
                        labels, value=labels[0], label="Family: its models", filterable=False, elem_id="family"
                    )
                    self.about = gr.HTML(elem_id="about")
                    self.again = gr.Button("Measure again", size="sm", visible=False, elem_id="again")
                    self.prompt = gr.Textbox(label="Prompt", lines=2, max_lines=6, elem_id="prompt")
                    self.examples = gr.Dataset(
                        label="Examples", components=[self.prompt], samples=[], visible=False, elem_id="examples"
                    )
                    self.seed = gr.Number(label="Seed of the noise", value=0, precision=0, elem_id="seed")
                    self.budget = gr.Slider(0, 1, 1, label="Budget", buttons=[], interactive=False, elem_id="budget")
                    with gr.Row():
                        self.draw = gr.Button(
                            "Draw", variant="primary", interactive=False, size="md", min_width=80, elem_id="draw"
                        )
                        self.sweep = gr.Button(
                            "Draw the sweep", interactive=False, size="md", min_width=140, elem_id="sweep"
                        )
                        self.stop = gr.Button("Stop", size="md", min_width=60, elem_id="stop")
                    with gr.Row():
                        self.plan_file = gr.DownloadButton(
                            "Plan (YAML)", interactive=False, size="sm", min_width=130, elem_id="plan-file"
                        )
                        self.png = gr.DownloadButton(
                            "Picture (PNG)", interactive=False, size="sm", min_width=130, elem_id="png"
                        )
                with gr.Column(scale=5, min_width=420, elem_id="results"):
                    self.message = gr.HTML(elem_id="message")
                    self.row = gr.HTML(elem_id="row")
                    self.plot = gr.HTML(elem_id="plot")
                    self.times = gr.HTML(elem_id="times")
                    self.pictures = gr.Gallery(
                        label="Pictures",
                        columns=4,
                        height="auto",
                        object_fit="contain",
                        buttons=["fullscreen"],
                        elem_id="pictures",
                    )
                    self.sheet = gr.Image(
                        show_label=False,
                        type="filepath",
                        buttons=["download", "fullscreen"],
                        interactive=False,
                        visible=False,
                        elem_id="sheet",
                    )
            self.drawn = gr.State(())
            self.subject = gr.State()
            self._listen(blocks)
        self.blocks = blocks.queue()

    def _listen(self, page: gr.Blocks) -> None:
        alone: dict[str, Any] = {"concurrency_id": MACHINE, "concurrency_limit": 1, "api_visibility": "private"}
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        planned = [self.message, self.row, self.plot, self.plan_file]
        measured = [*planned, self.about, self.again, self.budget, self.draw, self.sweep]
        results = [self.message, self.pictures, self.png, self.times, self.drawn, self.sheet, self.subject]
        prompting = [self.prompt, self.examples, self.pictures]
        asked = [self.family, self.budget, self.prompt, self.seed, self.subject]
        on_plot: dict[str, Any] = {"show_progress_on": [self.plot], **alone}
        on_pictures: dict[str, Any] = {"show_progress_on": [self.pictures], **alone}

        changed = gr.on(
            [page.load, self.family.change],
            self.on_change,
            [self.family],
            [*measured, self.pictures, self.png, self.times, self.sheet],
            trigger_mode="always_last",
            **quiet,
        )
        # Gradio would leave out the second of two choices while the first is measured.
        chosen = changed.then(
            self.on_choose, [self.family], measured + prompting, trigger_mode="always_last", **on_plot
        )
        again = self.again.click(self.on_again, [self.family], measured, **on_plot)
        self.budget.input(self.on_budget, [self.family, self.budget], planned, trigger_mode="always_last", **quiet)
        self.examples.click(lambda sample: sample[0], [self.examples], [self.prompt], **quiet)
        drawn = gr.on([self.draw.click, self.prompt.submit], self.on_draw, asked, results, **on_pictures)
        swept = self.sweep.click(self.on_sweep, asked, results, **on_pictures)
        self.pictures.select(self.on_select, [self.drawn], [self.png], **quiet)
        running = [chosen, again, drawn, swept]
        self.stop.click(self.on_stop, None, [self.message], cancels=running, queue=False, **quiet)
        page.unload(self.on_leave)

    def on_change(self, label: str, request: gr.Request) -> Updates:
        """Another family was chosen: what was asked of the one before is stopped, and nothing of it stays."""
        self.session.stop(_owner(request))
        nothing = gr.Button(interactive=False)
        return {
            self.message: "",
            self.about: "",
            self.again: gr.Button("Measure", visible=self._measurable(label)),
            self.budget: gr.Slider(interactive=False),
            self.draw: nothing,
            self.sweep: nothing,
            self.row: "",
            self.plot: "",
            self.plan_file: gr.DownloadButton(interactive=False),
            self.sheet: gr.Image(visible=False),
            **self._no_pictures(),
        }

    def on_choose(self, label: str, request: gr.Request, progress: gr.Progress = PROGRESS) -> Updates:
        """It is loaded and measured, planned for, and prompts for it are offered."""

        def chosen() -> Updates:
            known = self.session.prepare(label, _owner(request), _telling(progress))
            return self._measured(label, known, request) | {
                self.prompt: gr.Textbox(
                    value=known.examples[0], label="Prompt: the name of a class" if known.classes else "Prompt"
                ),
                self.examples: gr.Dataset(samples=[[each] for each in known.examples], visible=True),
                self.pictures: gr.Gallery(elem_classes=["crisp"] if known.profile.setting.size < SMOOTH else []),
            }

        return self._safely(chosen)

    def on_again(self, label: str, request: gr.Request, progress: gr.Progress = PROGRESS) -> Updates:
        """It is to be measured, be it again or not."""

        def measured() -> Updates:
            known = self.session.prepare(label, _owner(request), _telling(progress), again=True)
            return self._measured(label, known, request)

        return self._safely(measured)

    def on_budget(self, label: str, budget_s: float, request: gr.Request) -> Updates:
        """The slider was moved: another row is chosen."""
        return self._safely(lambda: self._planned(label, budget_s, request))

    def on_draw(
        self,
        label: str,
        budget_s: float,
        prompt: str,
        seed: object,
        subject: Subject | None,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> Updates:
        """A call is drawn by the chosen row; a sweep that is shown goes if it is not of the same `subject`."""

        def drawn() -> Updates:
            drawing = self.session.draw(label, budget_s, prompt, seed, _owner(request), _telling(progress))
            paths = tuple(map(str, drawing.paths))
            others: Updates = {} if subject == (prompt, seed) else {self.sheet: gr.Image(visible=False)}
            return others | {
                self.pictures: gr.Gallery(value=list(paths), selected_index=None),
                self.png: gr.DownloadButton(value=paths[0], interactive=True),
                self.times: words.said(drawing.said),
                self.drawn: paths,
                self.subject: (prompt, seed),
            }

        return self._safely(drawn)

    def on_sweep(
        self,
        label: str,
        budget_s: float,
        prompt: str,
        seed: object,
        subject: Subject | None,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> Updates:
        """The same noise is drawn at every share of the smallest denoiser.

        Pictures that are shown go if they are not of the same `subject`.
        """

        def swept() -> Updates:
            path = self.session.sweep(label, budget_s, prompt, seed, _owner(request), _telling(progress))
            others: Updates = {} if subject == (prompt, seed) else self._no_pictures()
            return others | {self.sheet: gr.Image(value=str(path), visible=True), self.subject: (prompt, seed)}

        return self._safely(swept)

    def on_select(self, drawn: tuple[str, ...], event: gr.SelectData) -> Any:
        """A picture was clicked: it is the one that is downloaded."""
        index = event.index
        return gr.DownloadButton(value=drawn[index]) if index in range(len(drawn)) else gr.skip()

    def on_stop(self, request: gr.Request) -> Updates:
        """What runs for this visitor ends after its step, what waits is not begun."""
        return {self.message: words.stopped(self.session.stop(_owner(request)))}

    def on_leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.session.leave(_owner(request))

    def _measured(self, label: str, known: Known, request: gr.Request) -> Updates:
        """What is known of a family, its budgets, and a plan for one in the middle."""
        start = max(known.least_s, START * known.most_s)
        start = round(round(start / known.step_s) * known.step_s, 9)
        return self._planned(label, start, request) | {
            self.about: words.measured(known),
            self.again: gr.Button("Measure again", visible=self._measurable(label)),
            self.draw: gr.Button(interactive=True),
            self.sweep: gr.Button(interactive=True),
            self.budget: gr.Slider(
                minimum=known.least_s,
                maximum=known.most_s,
                value=start,
                step=known.step_s,
                label=f"Budget: seconds for a call of {counted(known.profile.setting.batch_size, 'picture')}",
                interactive=True,
            ),
        }

    def _planned(self, label: str, budget_s: float, request: gr.Request) -> Updates:
        plan = self.session.plan(label, budget_s)
        path = self.session.plan_file(plan, _owner(request))
        return {
            self.row: words.row(plan),
            self.plot: pareto_svg(plan),
            self.plan_file: gr.DownloadButton(value=str(path), interactive=True),
        }

    def _no_pictures(self) -> Updates:
        return {self.pictures: gr.Gallery(value=None), self.png: gr.DownloadButton(interactive=False), self.times: ""}

    def _measurable(self, label: str) -> bool:
        choice = self.session.choices.get(label)
        return choice is not None and choice.profile is None

    def _safely(self, work: Callable[[], Updates]) -> Updates:
        """What `work` changes; where it fails, what the command line would say."""
        try:
            return {self.message: "", **work()}
        except StoppedError:
            return {self.message: words.stopped(True)}
        except Exception as error:
            return {self.message: words.failure(error)}


def _owner(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _telling(progress: gr.Progress) -> Tell:
    return lambda doing, share: progress(share, desc=doing)
