package main

import (
	"strings"
	"testing"
	"time"

	"github.com/exhume/exhume/schemas"
)

// Items that are in no place are told of, and only then.
func TestWhyItemsAreNowhere(t *testing.T) {
	t.Parallel()
	lost := schemas.Whereabouts{Batch: "b", State: schemas.StateRunning, Total: 10, Open: 4, Published: 10, Kept: 10}
	for _, c := range []struct {
		name   string
		change func(*schemas.Whereabouts)
		said   bool
	}{
		{"lost", func(*schemas.Whereabouts) {}, true},
		{"waiting", func(w *schemas.Whereabouts) { w.Waiting = 1 }, false},
		{"in hand", func(w *schemas.Whereabouts) { w.InHand = 1 }, false},
		{"to be tried again", func(w *schemas.Whereabouts) { w.Retrying = 1 }, false},
		{"done", func(w *schemas.Whereabouts) { w.Unrecorded = 1 }, false},
		{"being submitted", func(w *schemas.Whereabouts) { w.Total = 0 }, false},
		{"not published", func(w *schemas.Whereabouts) { w.Published = 5 }, false},
		{"paused", func(w *schemas.Whereabouts) { w.State = schemas.StatePaused }, false},
	} {
		w := lost
		c.change(&w)
		if lines := strings.Join(whyLines(w, false, time.Now()), "\n"); strings.Contains(lines, "The broker holds no request of them.") != c.said {
			t.Errorf("%s:\n%s", c.name, lines)
		}
	}
}
