package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// RunForPeak runs a command and gives the most memory that it held, in bytes. The
// kernel's own account of a finished child does not do: it begins with the peak of
// the parent.
func RunForPeak(cmd *exec.Cmd) (peak int64, err error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return peak, err
		case <-tick.C:
			if n, err := PeakMemory(cmd.Process.Pid); err == nil {
				peak = max(peak, n)
			}
		}
	}
}

// PeakMemory is the most memory that a running process has held, in bytes.
func PeakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var n int64
			_, err := fmt.Sscan(kb, &n)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}
