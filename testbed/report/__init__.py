"""What did it show?  Claims judged, figures drawn, a report written, all from bundles alone.

Nothing here runs an experiment: `Results` reads what `testbed.run` recorded.
"""
