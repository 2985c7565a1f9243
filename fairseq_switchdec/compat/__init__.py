"""Makes stock fairseq 0.12.2 run on Python 3.9 to 3.13 and torch 2.0 to 2.13, and its checkpoints safe to load.

What each module mends, and for which versions:

    mutable_defaults   Python >= 3.11 refuses the config dataclasses of fairseq 0.12 and hydra 1.0
    hydra_plugins      Python >= 3.12 lacks what hydra 1.0 scans its plugins with
    typing_io          Python >= 3.13 lacks a module that hydra 1.0 and its parser import
    checkpoints        torch >= 2.6 refuses fairseq's checkpoints; torch < 2.6 would execute whatever they hold
    atomic_copy        a kill while fairseq copies a checkpoint leaves half a checkpoint_last.pt
    ema_start          --store-ema fails where the checkpoint to start from has no EMA
    reading_ahead      an exit while fairseq reads batches ahead aborts the process
    encoder_fastpath   torch >= 1.13 asks for an argument that fairseq's stock transformer does not give
    nan_detector       fairseq's search for the first NaN of a training that diverged ends in another error
    numpy_names        numpy >= 1.24 lacks names that fairseq's data sets use
    user_dir           fairseq ignores the tasks and models of a ``--user-dir`` package that is already imported
    complete_help      fairseq's ``--help`` ends before the options of task, model and criterion are added
    spawn              a process that fairseq spawns starts without these fixes
    config_copies      omegaconf 2.0 copies a whole config hundreds of times before a command begins its work

No fix touches another package: each acts on modules of fairseq and hydra alone, when those are imported (``imports``).
``startup`` brings the fixes into the stock commands, through the ``.pth`` file that is installed beside the package.
"""

_installed = False


def install() -> None:
    """Turn the fixes on for this process. Calling it again does nothing.

    fairseq and hydra need not be installed, nor be imported yet: a fix waits for the module it mends.
    """
    global _installed
    if _installed:
        return
    _installed = True
    # Imported here, because every start of Python imports this package.
    from fairseq_switchdec.compat import (
        atomic_copy,
        checkpoints,
        complete_help,
        config_copies,
        ema_start,
        encoder_fastpath,
        hydra_plugins,
        mutable_defaults,
        nan_detector,
        numpy_names,
        reading_ahead,
        spawn,
        typing_io,
        user_dir,
    )
    from fairseq_switchdec.compat.imports import ImportHooks, installed_version

    hooks = ImportHooks()
    # A package without metadata lies on PYTHONPATH: take it for the release that setup.py asks for.
    if installed_version("hydra-core", default="1.0.7").startswith("1.0."):
        mutable_defaults.register(hooks, "hydra")
        hydra_plugins.register(hooks)
        typing_io.register(hooks)
    if installed_version("fairseq", default="0.12.2").startswith("0.12."):
        mutable_defaults.register(hooks, "fairseq")
        checkpoints.register(hooks)
        atomic_copy.register(hooks)
        ema_start.register(hooks)
        reading_ahead.register(hooks)
        encoder_fastpath.register(hooks)
        nan_detector.register(hooks)
        numpy_names.register(hooks)
        user_dir.register(hooks)
        complete_help.register(hooks)
        spawn.register(hooks)
        config_copies.register(hooks)
    hooks.activate()
