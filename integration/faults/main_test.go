package faults

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/exhume/exhume/integration/harness"
)

func TestMain(m *testing.M) {
	// Most of the time of a test is waiting: for leases to end, for servers to start.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	harness.Main(m, "failpoints")
}

// fault is one test of the suite.
type fault struct {
	name string
	// long ones run with FAULTS=all only.
	long bool
	run  func(t *testing.T, random *rand.Rand)
}

// strike runs those faults that are selected, each with chance of its own, which the
// seed and its name make the same again.
func strike(t *testing.T, faults []fault) {
	t.Helper()
	t.Parallel()
	seed := seedOf(t)
	for _, f := range faults {
		if f.long && os.Getenv("FAULTS") != "all" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			again := fmt.Sprintf("SEED=%d FAULTS=all go test ./integration/faults -run '^%s$'", seed, t.Name())
			t.Logf("to run the same again: %s", again)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("it failed with seed %d; to run the same again: %s", seed, again)
				}
			})
			name := fnv.New64a()
			_, _ = name.Write([]byte(t.Name()))
			f.run(t, rand.New(rand.NewPCG(seed, name.Sum64())))
		})
	}
}

// seedOf is the seed of the run: SEED, or any.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SEED is %q: want a number", text)
	}
	return seed
}
