"""Exports a small Keras network to ONNX with tf2onnx, ready for `quench quantize`.

    python export_tensorflow.py OUT.onnx

The input stays NHWC unless inputs_as_nchw names it; quench reads pictures as NCHW.
"""

import sys

import tensorflow as tf
import tf2onnx


def small_net(classes=10):
    layers = tf.keras.layers
    inputs = tf.keras.Input((32, 32, 3), name="input")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def main():
    model = small_net()
    signature = [tf.TensorSpec((None, 32, 32, 3), tf.float32, name="input")]

    @tf.function(input_signature=signature)
    def run(x):
        return model(x, training=False)

    tf2onnx.convert.from_function(
        run, signature, opset=17, inputs_as_nchw=["input"], output_path=sys.argv[1]
    )


if __name__ == "__main__":
    main()
