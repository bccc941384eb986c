"""`roost demo`: a cluster of processes on this machine that keeps real data while nodes join, leave and are killed.

`library` is the input, `worker` a node as a process, `processes` the handle on one, `story` what happens and in which
order, `screen` how it is shown.
"""
