"""The lite networks as they are trained, in torch; at run time ONNX Runtime runs their exports."""
