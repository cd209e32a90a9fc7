#!/usr/bin/env bash
# A real SLURM on this machine alone, as root: one controller, several nodes, GPUs that the
# scheduler believes in. No systemd, no control groups, no accounting.
#
#   start_slurm.sh FOLDER      NODES=2 CPUS=2 GPUS=2 MEMORY_MB=8000 PORT=17000 TASK_PROLOG=FILE
#
# GPUS: one a node, or more.
#
# FOLDER takes configuration, logs, state and the pid files by which stop_slurm.sh ends it.
# The configuration is linked into /etc/slurm: the job steps that Snakemake starts drop SLURM_CONF.
set -euo pipefail
folder=$(realpath -m "${1:?usage: start_slurm.sh FOLDER}")
nodes=${NODES:-2} cpus=${CPUS:-2} gpus=${GPUS:-2} memory_mb=${MEMORY_MB:-8000} port=${PORT:-17000}
host=$(hostname -s)
here=$(dirname "$(realpath "$0")")

if [ -s "$folder/run/slurmctld.pid" ] && kill -0 "$(cat "$folder/run/slurmctld.pid")" 2>/dev/null; then
  echo "a cluster runs from $folder already; .ci/stop_slurm.sh $folder ends it" >&2
  exit 1
fi
if [ -e /etc/slurm/slurm.conf ] && [ ! -L /etc/slurm/slurm.conf ]; then
  echo "/etc/slurm/slurm.conf is a real cluster's: it is left alone" >&2
  exit 1
fi
for taken in "$port" $(seq $((port + 11)) $((port + 10 + nodes))); do
  if (: <>"/dev/tcp/127.0.0.1/$taken") 2>/dev/null; then
    echo "port $taken is taken, maybe by another cluster's controller; PORT=… chooses others" >&2
    exit 1
  fi
done
mkdir -p "$folder"/{etc,log,run,state,spool,dev} /etc/slurm
chmod 755 "$folder" "$folder"/*
unset SLURM_CONF

source "$here/wait_for.sh"

# Jobs are signed by munge; Debian's package made the key.
if ! munge -n </dev/null >/dev/null 2>&1; then
  [ -s /etc/munge/munge.key ] || /usr/sbin/mungekey --create
  install -d -o munge -g munge -m 755 /run/munge
  install -d -o munge -g munge -m 700 /var/log/munge /var/lib/munge
  runuser -u munge -- /usr/sbin/munged
  wait_for 20 munge -n </dev/null
  cp /run/munge/munged.pid "$folder/run/munged.pid"
fi

# Without File= SLURM hands out no numbers, and so sets no CUDA_VISIBLE_DEVICES.
for number in $(seq 0 $((gpus - 1))); do
  [ -e "$folder/dev/nvidia$number" ] || mknod "$folder/dev/nvidia$number" c 1 3
done
echo "Name=gpu File=$folder/dev/nvidia[0-$((gpus - 1))]" >"$folder/etc/gres.conf"
echo "CgroupMountpoint=/sys/fs/cgroup" >"$folder/etc/cgroup.conf"
cat >"$folder/etc/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again waits as long as its old credential holds, by default two minutes.
AuthInfo=cred_expire=30
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
${TASK_PROLOG:+TaskProlog=$TASK_PROLOG}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# Several nodes on one machine say more than it has.
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
# Memory is watched by sampling, for lack of control groups.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
# A lost node is noticed within half a minute and comes back by itself.
SlurmdTimeout=15
ReturnToService=2
KillWait=5
MinJobAge=300
JobRequeue=1
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
PropagateResourceLimits=NONE
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 11))-$((port + 10 + nodes)) CPUs=$cpus Boards=1 SocketsPerBoard=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$memory_mb Gres=gpu:$gpus State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=100
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP DefMemPerCPU=100 PriorityTier=10
CONF
for name in slurm gres cgroup; do
  ln -sfn "$folder/etc/$name.conf" "/etc/slurm/$name.conf"
done

all_idle() { [ "$(sinfo -h -N -t idle -o %N | sort -u | wc -l)" = "$nodes" ]; }
if slurmctld && wait_for 30 scontrol ping; then
  for number in $(seq "$nodes"); do
    mkdir -p "$folder/spool/n$number"
    slurmd -N "n$number"
  done
  if wait_for 30 all_idle; then
    sinfo -N -o '%N %T %c %m %G'
    exit
  fi
fi
tail -n 5 "$folder"/log/*.log >&2
"$here/stop_slurm.sh" "$folder"
exit 1
