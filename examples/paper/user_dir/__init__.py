"""``--user-dir examples/paper/user_dir``: what the competitors add to the plugin's task and criterion."""

from examples.paper import distillation, exit_task, exit_training  # noqa: F401
from fairseq_switchdec.compat.user_dir import register_tasks_and_models

register_tasks_and_models()
