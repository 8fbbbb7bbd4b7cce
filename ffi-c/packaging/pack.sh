#!/bin/sh
# Packs an installed libkeytally for programs in C and C++ on machines without Rust:
# libkeytally-VERSION-TARGET.tar.gz, which may be unpacked into any folder, and, where dpkg-deb
# exists, libkeytally-dev_VERSION_ARCHITECTURE.deb. Prints their paths.
#
# The same files give the same packages: names are sorted, owners are root, and times are
# SOURCE_DATE_EPOCH, by default the time of the last commit.
#
# Usage: pack.sh TREE FOLDER VERSION, in the folder of the workspace
set -eu
umask 022
tree=$1 folder=$2 version=$3
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

target=$(rustc -vV | sed -n 's/^host: //p')
name=libkeytally-$version-$target
mkdir "$work/$name"
cp -dR "$tree/." "$work/$name"
# Leaves out debug information, which is most of the size.
strip --strip-unneeded "$work/$name/lib/libkeytally.so"
strip --enable-deterministic-archives --strip-debug "$work/$name/lib/libkeytally.a"
for file in LICENSE-APACHE LICENSE-MIT README.md; do
    install -m 644 "ffi-c/$file" "$work/$name/$file"
done
install -D -m 644 -t "$work/$name/examples" examples/gate.c examples/CMakeLists.txt
tar --create --sort=name --owner=0 --group=0 --numeric-owner --format=gnu \
    --mtime="@$SOURCE_DATE_EPOCH" --directory="$work" "$name" |
    gzip --no-name --best >"$folder/$name.tar.gz"
echo "$folder/$name.tar.gz"

command -v dpkg-deb >/dev/null || exit 0
architecture=$(dpkg --print-architecture)
triplet=$(cc -print-multiarch)
usr=$work/deb/usr
doc=$usr/share/doc/libkeytally-dev
mkdir -p "$usr/lib" "$doc" "$work/deb/DEBIAN"
cp -dR "$work/$name/include" "$work/$name/share" "$usr"
cp -dR "$work/$name/examples" "$doc"
cp -dR "$work/$name/lib" "$usr/lib/$triplet"
chmod 644 "$usr/lib/$triplet/libkeytally.so.$version"
pc=$usr/lib/$triplet/pkgconfig/keytally.pc
sed -e 's|^prefix=.*|prefix=/usr|' -e "s|^libdir=.*|libdir=\${exec_prefix}/lib/$triplet|" \
    "$work/$name/lib/pkgconfig/keytally.pc" >"$pc"
{
    echo 'Copyright: The Keytally authors'
    echo 'License: MIT or Apache-2.0, at your option. The latter is in'
    echo '/usr/share/common-licenses/Apache-2.0.'
    echo
    cat ffi-c/LICENSE-MIT
} >"$doc/copyright"
gzip --no-name --best <CHANGELOG.md >"$doc/CHANGELOG.md.gz"
maintainer=$(sed -n 's/^authors = \["\(.*\)"\]$/\1/p' Cargo.toml)
test -n "$maintainer"
# The newest version of glibc whose symbols the library needs.
glibc=$(objdump -T "$usr/lib/$triplet/libkeytally.so" | grep -o 'GLIBC_[0-9.]*' | sort -uV |
    tail -n 1 | sed 's/GLIBC_//')
cat >"$work/deb/DEBIAN/control" <<END
Package: libkeytally-dev
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -k --apparent-size -s "$usr" | cut -f 1)
Depends: libc6 (>= $glibc), libgcc-s1
Section: libdevel
Priority: optional
Homepage: https://github.com/keytally/keytally
Description: Embedded API-key checks and rate limits for C and C++
 Keytally verifies API keys and counts rate limits inside the server's own
 process, in files that processes share. This package holds the library, the
 headers, and the files for pkg-config and CMake.
END
soname=$(objdump -p "$usr/lib/$triplet/libkeytally.so" | sed -n 's/ *SONAME  *libkeytally\.so\.//p')
echo "libkeytally $soname libkeytally-dev (>= $version)" >"$work/deb/DEBIAN/shlibs"
printf 'activate-noawait ldconfig\n' >"$work/deb/DEBIAN/triggers"
(cd "$work/deb" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$work/deb" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$work/deb" \
    "$folder/libkeytally-dev_${version}_$architecture.deb" >/dev/null
echo "$folder/libkeytally-dev_${version}_$architecture.deb"
