#!/bin/sh
# demo.sh PISEDUCE_RUN NODES: bring up the lab and deploy its sample environment on every node,
# with a password and an SSH key that is made for it.
set -eu
run=$1 nodes=$2

folder=${XDG_STATE_HOME:-$HOME/.local/state}/piseduce-demo
mkdir -p "$folder"
[ -e "$folder/key" ] || ssh-keygen -q -t ed25519 -N '' -C demo -f "$folder/key"

"$run" lab up --nodes "$nodes"
names=$(seq --format='node-%g' "$nodes")
# shellcheck disable=SC2086 # a list of words
echo 'correct horse battery staple' |
    "$run" deploy $names --env debian-12 --ssh-key "$folder/key.pub" --password-stdin
