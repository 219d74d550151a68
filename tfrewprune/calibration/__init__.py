# SPDX-License-Identifier: Apache-2.0
"""What a few unlabelled inputs tell: which groups a layer can miss, and its best rest.

`columns` (a layer's input as a matrix) -> `problem` (second moments, least squares) ->
`selection` (group OBS) -> `network` (walks a model layer by layer) -> `keras_network`
(the walk through a Keras model). `inputs` checks what a user gives, `remarks` says what
is doubtful about it.
"""
