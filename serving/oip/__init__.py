"""The Open Inference Protocol (V2) over REST, with the binary tensor data extension.

Tensors in, the contract's rows to whoever answers, tensors out. Never a model, a file or Kafka.
"""
