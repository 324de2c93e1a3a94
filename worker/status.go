package worker

import "github.com/exhume/exhume/schemas"

// Status tells how the worker stands, and what it has in hand. It can be called
// at any time.
func (w *Worker) Status(q schemas.WorkerQuestion) schemas.WorkerStatus {
	s := schemas.WorkerStatus{
		Worker: w.cfg.Name, Version: w.cfg.Version, Backend: w.cfg.Backend, StartedAt: w.started.UTC(),
		Draining: w.draining.Load(), Breakers: w.guard.status(),
	}
	s.Items, s.InHand = w.hands.list(q.Batch)
	if !s.Draining {
		s.LimitedBy, s.LimitedUntil = w.slots.limited()
	}
	return s
}

// Sick is why the worker has stepped aside from a destination, where it cannot
// write, nil when it has not. It can be called at any time.
func (w *Worker) Sick() error { return w.guard.sick() }
