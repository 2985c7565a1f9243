"""Pictures of ``--switch-report`` files. Only this folder needs matplotlib, and only when something is drawn."""
