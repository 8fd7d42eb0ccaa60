# The first process of the engine's namespaces: runs dockerd in the directory $1 for as long as the standard input
# lasts. When this process ends, the kernel ends all others of the namespace.
set -e
exec 3<&0
dir=$1

# Programs that write beside the directories that they are told to use write on a layer that ends with the namespace.
case $dir in /run/*) echo "cannot work in $dir: set TMPDIR to a directory that is not in /run" >&2; exit 1 ;; esac
mount -n -t tmpfs tmpfs /run
for part in etc opt; do
  mkdir -p "/run/upper/$part" "/run/work/$part"
  mount -n -t overlay -o "lowerdir=/$part,upperdir=/run/upper/$part,workdir=/run/work/$part" overlay "/$part"
done
ip link set lo up
# The machine may have an engine of its own, whose configuration is not for this one.
echo '{}' >"$dir/daemon.json"

end() {
  kill -KILL -1 || true
  # Who is paused (frozen, in version 1 of control groups) does not die before it is thawed.
  for state in "/sys/fs/cgroup/freezer/${dir##*/}"/*/freezer.state; do
    [ ! -e "$state" ] || echo THAWED >"$state"
  done
  exit "$1"
}
trap 'end 0' TERM
dockerd --config-file "$dir/daemon.json" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
  --host "unix://$dir/sock" --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/${dir##*/}" \
  --log-level warn 3<&- &
engine=$!
{ cat <&3 >/dev/null; kill -TERM 1; } &
# Meanwhile it also buries orphans, the duty of a first process.
wait "$engine" || true
end 1
