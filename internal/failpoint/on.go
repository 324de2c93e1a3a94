//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Variable names the steps to die at: name=count, several with commas between. The
// program dies when the step is taken for the count-th time.
const Variable = "EXHUME_FAILPOINTS"

var (
	mu   sync.Mutex
	left = parse(os.Getenv(Variable))
)

func parse(text string) map[string]int {
	counts := map[string]int{}
	for part := range strings.SplitSeq(text, ",") {
		name, count, _ := strings.Cut(part, "=")
		if n, err := strconv.Atoi(count); err == nil {
			counts[name] = n
		}
	}
	return counts
}

// Here kills the program, without any cleaning up, when its time has come.
func Here(name string) {
	mu.Lock()
	defer mu.Unlock()
	if left[name]--; left[name] == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // nothing after this step is done
	}
}
