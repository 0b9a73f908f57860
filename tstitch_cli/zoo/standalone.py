"""The zoo file of one denoiser, with all that is known of it, so that it needs no other file to be understood."""

from __future__ import annotations

from tstitch_cli.zoo.architectures import ArchitectureFacts
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.zoo_file import DenoiserFacts, FamilyFacts, ZooFile


def zoo_file(entry: Entry, name: str, title: str) -> ZooFile:
    """A zoo file with nothing but a denoiser `name` that lies beside it and is in all else as `entry`."""
    family = FamilyFacts(
        component=entry.component,
        pipeline=entry.pipeline,
        licence=entry.licence,
        latent_space=entry.latent_space,
        noise=entry.noise,
        conditioning=entry.conditioning,
        defaults=entry.defaults,
        parts=f"{entry.parts}@{entry.revision}" if entry.revision and entry.parts == entry.source else entry.parts,
        components=entry.components,
    )
    built = entry.architecture
    facts = DenoiserFacts(
        family=entry.family or entry.latent_space.name,
        source="folder:.",
        title=title,
        parameters=entry.parameters,
        architecture=None if built is None else ArchitectureFacts(model=built.model, config=built.config),
    )
    return ZooFile({facts.family: family}, {name: facts})
