#!/bin/sh
# Builds the example, from its folder.
set -eu
mkdir -p dist
componentize-py -d ../../../wit -d world.wit -w adit:examples/api-key componentize api_key -o dist/api_key_py.wasm
