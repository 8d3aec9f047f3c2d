"""The same net behind other servers, each written as its own documentation shows; every one runs in its own environment.

Nothing here may import this project: the environments do not have it.
"""
