"""fairseq's commands with ``--ddp-backend pytorch_ddp`` on a processor, which stock fairseq 0.12.2 refuses: it names a
GPU to DistributedDataParallel. Here it does not; all else is torch's. Arguments as of ``python -m fairseq_switchdec``.
"""

from __future__ import annotations

from typing import Any

from fairseq_switchdec.__main__ import main
from fairseq_switchdec.compat import install

install()

import fairseq.models.distributed_fairseq_model as wrapper  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402


class OnProcessor(DistributedDataParallel):
    """Without device ids."""

    def __init__(self, module: Any, device_ids: Any, output_device: Any, **options: Any):
        super().__init__(module, **options)


if __name__ == "__main__":
    wrapper.DistributedDataParallel = OnProcessor
    main()
