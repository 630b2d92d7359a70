"""Training steps that run as plans; docs/plans.md says what a plan is.

In the order in which a step passes them: planner.py decides, with trace.py's record and watch.py;
fusion.py finds what stages can do; builder.py lays out buffers and rows; replay.py runs them;
packed.py holds the parameters between steps.
"""
