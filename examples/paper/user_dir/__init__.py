"""``--user-dir examples/paper/user_dir``: what the competitors add to the plugin's task and criterion."""

from fairseq.criterions import register_criterion
from fairseq.tasks import register_task

from examples.paper.distillation import DistillationCriterion
from examples.paper.exit_task import EarlyExitTask
from examples.paper.exit_training import EarlyExitCriterion
from examples.paper.options import DistillationCriterionConfig, EarlyExitCriterionConfig, EarlyExitTaskConfig
from fairseq_switchdec.compat.user_dir import register_tasks_and_models

register_tasks_and_models()
register_task("early_exit_task", dataclass=EarlyExitTaskConfig)(EarlyExitTask)
register_criterion("early_exit_criterion", dataclass=EarlyExitCriterionConfig)(EarlyExitCriterion)
register_criterion("distillation_criterion", dataclass=DistillationCriterionConfig)(DistillationCriterion)
