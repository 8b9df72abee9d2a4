"""A virtual machine moves from device to device while its video plays (D3.1 2.1).

usecase, parameters, journey   the use case as the testbed sees it; which moves a trial makes
viewing, account               what the viewer saw; what is recorded of a move
claims, figures, *_figure      what is made of the records
"""

from usecases.vm_migration.usecase import VmMigration

__all__ = ["VmMigration"]
