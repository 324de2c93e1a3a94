package worker

import "github.com/exhume/exhume/schemas"

// Status tells how the worker stands, and what it has in hand. It can be called
// at any time.
func (w *Worker) Status(q schemas.WorkerQuestion) schemas.WorkerStatus {
	s := schemas.WorkerStatus{
		Worker: w.cfg.Name, Version: w.cfg.Version, Backend: w.cfg.Backend, StartedAt: w.started.UTC(),
		Draining: w.draining.Load(), Breaker: w.guard.status(),
	}
	s.Items, s.InHand = w.hands.list(q.Batch)
	if !s.Draining {
		s.LimitedBy, s.LimitedUntil = w.slots.limited()
	}
	return s
}
