#!/bin/sh
# Completes the pages of the program for its package: documents, and compressed manual pages.
#
# Usage: prepare.sh PAGES, in the folder of the workspace
set -eu
umask 022
mkdir "$1/doc"
cat packaging/debian/copyright LICENSE-MIT >"$1/doc/copyright"
sh packaging/debian/changelog.sh keytally | gzip --no-name --best >"$1/doc/changelog.gz"
gzip --no-name --best <CHANGELOG.md >"$1/doc/CHANGELOG.md.gz"
gzip --no-name --best "$1"/man/man1/*
