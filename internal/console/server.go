// Package console is what a role answers over HTTP: whether it is alive and
// ready, and its metrics.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// readTimeout bounds how long a client may take to send a request.
	readTimeout = 10 * time.Second
	// checkTimeout bounds one check of readiness.
	checkTimeout = 5 * time.Second
	// stopTimeout bounds how long answers in progress are waited for at the end.
	stopTimeout = 2 * time.Second
)

// Check is one thing that a role needs to be ready.
type Check struct {
	Name string
	// Probe says whether it is there, soon.
	Probe func(context.Context) error
}

// Server answers HTTP.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen starts to listen on host:port. The answers are
//
//	GET /livez    200 while the process works
//	GET /readyz   200 when all checks pass, 503 and the reasons when not
//	GET /metrics  metrics in the Prometheus text format
func Listen(address string, m *Metrics, checks []Check) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("http: %w (choose another address with --http-listen, 127.0.0.1:0 for any free port, off for none)", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, report{Status: "ok"}) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { ready(r.Context(), w, checks) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return &Server{l, &http.Server{Handler: mux, ReadTimeout: readTimeout, ReadHeaderTimeout: readTimeout, MaxHeaderBytes: 1 << 16}}, nil
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Run answers until the context ends.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err := s.http.Shutdown(ending)
		if errors.Is(err, context.DeadlineExceeded) {
			err = s.http.Close()
		}
		stopped <- err
	}()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return <-stopped
}

// report is an answer about health.
type report struct {
	Status string `json:"status"`
	// Checks are what is wrong, by the name of the check.
	Checks map[string]string `json:"checks,omitempty"`
}

func ready(ctx context.Context, w http.ResponseWriter, checks []Check) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	type outcome struct {
		name string
		err  error
	}
	done := make(chan outcome, len(checks))
	for _, c := range checks {
		go func() { done <- outcome{c.Name, c.Probe(ctx)} }()
	}
	wrong := map[string]string{}
	for _, c := range checks {
		wrong[c.Name] = fmt.Sprintf("no answer within %s", checkTimeout)
	}
	for range checks {
		select {
		case o := <-done:
			if delete(wrong, o.name); o.err != nil {
				wrong[o.name] = o.err.Error()
			}
		case <-ctx.Done(): // also for a check that does not heed it
		}
	}
	if len(wrong) > 0 {
		answer(w, http.StatusServiceUnavailable, report{"not ready", wrong})
		return
	}
	answer(w, http.StatusOK, report{Status: "ok"})
}

func answer(w http.ResponseWriter, status int, r report) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(r) // the client may have gone
}
