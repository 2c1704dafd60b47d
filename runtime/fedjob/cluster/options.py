"""Options that the commands share, as kubectl has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_CODES = (
    "Exit codes: 0 done (with --watch or --wait: the job is complete), 1 the job failed, 2 the job file or an option is wrong, "
    "3 the cluster cannot be reached, refuses, or has no such job, 4 --timeout has passed, 130 interrupted."
)

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.", show_default=False)]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace of the job. Default: that of the context.", show_default=False),
]
Context = Annotated[
    str | None,
    typer.Option("--context", help="Context of the kubeconfig. Default: the current one.", show_default=False),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Default: $KUBECONFIG, else ~/.kube/config.", show_default=False),
]
Image = Annotated[
    str,
    typer.Option(
        "--image",
        help="Image of the pod that reads the volume. Default: the one that ran the server.",
        show_default=False,
    ),
]
