package bench

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what this process has used.
type usage struct {
	at  time.Time
	cpu time.Duration
}

// beginUsage starts to count, and lets the system forget the peak of memory so
// far, where it can.
func beginUsage() usage {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	return usage{time.Now(), cpuTime()}
}

// since is what was used since then.
func (u usage) since() (took, cpu time.Duration) { return time.Since(u.at), cpuTime() - u.cpu }

func cpuTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// peakMemory is the most that a process had resident, in bytes, 0 if the system
// does not tell.
func peakMemory(pid string) int64 {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kilobytes, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}
