"""The other monitors, each as its own documentation uses it.

NannyML and River run in environments of their own: nothing here may import this project's packages.
"""
