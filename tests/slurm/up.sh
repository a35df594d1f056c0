#!/usr/bin/env bash
# A SLURM cluster on one machine, for tests: two nodes of two CPUs and a pretended GPU each, accounting, preemption, no systemd, no
# cgroups. Everything lies in DIR, but for /etc/slurm/slurm.conf: a job's own srun does not inherit SLURM_CONF, so a link stands there.
#   up.sh DIR     needs root and Debian's packages (test_slurm.py names them); down.sh DIR ends it
set -euo pipefail
dir=${1:?a folder to be made}
host=$(hostname -s)
here=$(cd "$(dirname "$0")" && pwd)
export SLURM_CONF=$dir/slurm.conf
trap '"$here/down.sh" "$dir"' ERR

wait_for() { # SECONDS COMMAND...
  local tries=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    ((tries-- > 0)) || { echo "up.sh: still not true: $*" >&2 && return 1; }
    sleep 0.1
  done
}
port_is_open() { (: >"/dev/tcp/127.0.0.1/$1"); }

mkdir -p "$dir"/{state,log,data,munge,spool-n1,spool-n2} /etc/slurm
chmod 755 "$dir" "$dir/munge"
[ ! -e /etc/slurm/slurm.conf ] || { echo "up.sh: /etc/slurm/slurm.conf is there: this machine has a cluster of its own" >&2 && exit 1; }
ln -sf "$SLURM_CONF" /etc/slurm/slurm.conf

# Who is who: a munge of our own, with its own key and socket.
dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 status=none
chmod 400 "$dir/munge/key"
munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
  --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" >/dev/null 2>&1

# Accounting: a database at a socket and a local port. --skip-test-db: an anonymous user would shadow ours.
sql=(mariadb --no-defaults --socket="$dir/data.socket")
mariadb-install-db --no-defaults --skip-test-db --user=root --datadir="$dir/data" \
  --auth-root-authentication-method=normal >"$dir/log/install-db" 2>&1
mariadbd --no-defaults --user=root --datadir="$dir/data" --socket="$dir/data.socket" --pid-file="$dir/data.pid" \
  --bind-address=127.0.0.1 --port=13306 --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 >"$dir/log/mariadbd" 2>&1 &
wait_for 60 "${sql[@]}" -e "select 1"
"${sql[@]}" -e "create database slurm_acct_db; create user 'slurm'@'localhost' identified by 'x';
  grant all on slurm_acct_db.* to 'slurm'@'localhost';"
cat >"$dir/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
DbdHost=localhost
DbdPort=16819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=13306
StorageUser=slurm
StoragePass=x
StorageLoc=slurm_acct_db
LogFile=$dir/log/slurmdbd
PidFile=$dir/slurmdbd.pid
END
chmod 600 "$dir/slurmdbd.conf"

# cred_expire: a requeued job waits that long before it may start again. AccountingStoragePass: where another than munge's usual
# socket is. OverMemoryKill: without cgroups, the only limit on memory. n3 has no daemon: a node that is down, and without a GPU.
cat >"$dir/slurm.conf" <<END
ClusterName=small
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=16819
AccountingStoragePass=$dir/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
MinJobAge=300
MailProg=/bin/true
KillWait=2
GresTypes=gpu
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=2 RealMemory=8000 Gres=gpu:toy:1
NodeName=n3 NodeHostname=$host NodeAddr=127.0.0.1 Port=17003 CPUs=2 RealMemory=1000 State=DOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=1-00:00:00 PriorityTier=1
PartitionName=urgent Nodes=n[1-2] MaxTime=120 PriorityTier=2 PreemptMode=OFF
PartitionName=plain Nodes=n3 MaxTime=10
END
mknod "$dir/card" c 1 3 # /dev/null's numbers: with a plain file, jobs would get no CUDA_VISIBLE_DEVICES
echo "NodeName=n[1-2] Name=gpu Type=toy File=$dir/card" >"$dir/gres.conf"
echo "CgroupAutomount=no" >"$dir/cgroup.conf"

slurmdbd
wait_for 60 port_is_open 16819
sacctmgr --immediate add cluster small >/dev/null
sacctmgr --immediate add account lab Cluster=small >/dev/null
sacctmgr --immediate add user root Account=lab >/dev/null
slurmctld
for node in n1 n2; do slurmd -N $node; done
both_idle() { [ "$(sinfo --noheader --Node --partition main --format %T | grep -c idle)" = 2 ]; }
wait_for 60 both_idle
sinfo --Node --format "%P %N %c %m %l %G %T"
