#!/usr/bin/env bash
# kwscale exec beside its peers over real sshd endpoints: installs the peers into a scratch directory, measures, prints
# tables. See README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scratch=${SCRATCH:-/tmp/kwscale-peers}
PATH=$PATH:/usr/sbin
for needed in sshd ssh scp xargs python3 dpkg apt-get; do
  command -v "$needed" >/dev/null || { echo "run.sh: $needed is missing (Debian: openssh-server, openssh-client, python3-venv)" >&2; exit 2; }
done
mkdir -p "$scratch/debs" "$scratch/root"

# Versions that the figures in docs/performance.md were taken with.
if [ ! -e "$scratch/venv/done" ]; then
  python3 -m venv "$scratch/venv"
  "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check parallel-ssh==2.16.0.post1 asyncssh==2.24.1 \
    ansible-core==2.19.14
  touch "$scratch/venv/done"
fi
# Unpacked, not installed: nothing of the system is changed.
if [ ! -e "$scratch/root/done" ]; then
  (cd "$scratch/debs" && apt-get download -qq pdsh libgenders0 clustershell python3-clustershell python3-yaml libyaml-0-2)
  for package in "$scratch"/debs/*.deb; do dpkg -x "$package" "$scratch/root"; done
  # It goes by its name, and its wrapper by the place where it is installed.
  ln -sf pdsh.bin "$scratch/root/usr/bin/pdsh"
  touch "$scratch/root/done"
fi
cargo build --quiet --release --locked --manifest-path "$here/../../Cargo.toml" --bin kwscale
target=${CARGO_TARGET_DIR:-$here/../../target}
measure=(python3 "$here/measure.py" --kwscale "$target/release/kwscale" --scratch "$scratch" "$@")
if [ "$(id -u)" != 0 ]; then
  exec "${measure[@]}"
fi
# As root, pdsh takes its modules from where it was compiled for, and from nowhere else: seen so by this run alone.
libraries=/usr/lib/$(dpkg-architecture -q DEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")
exec unshare --mount --propagation private bash -c '
  mount -t overlay overlay -o "lowerdir=$1$2:$2" "$2" && shift 2 && exec "$@"
' sh "$scratch/root" "$libraries" "${measure[@]}"
