"""The HTTP service: answers from the champion version, follows new ones without a restart, logs what it answered."""
