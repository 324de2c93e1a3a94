package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/broker"
)

// ErrNoFleet says that no fleet is configured and none works here.
var ErrNoFleet = errors.New("no fleet to connect to: give its NATS server with --nats or --context, or start one here with 'exhume up'")

// localFleet is what a fleet in one process leaves in its state directory for
// those who want to connect to it.
type localFleet struct {
	URL   string `json:"url"`
	Token string `json:"token"`
	// Temporary says that it ends with its batch: it can be steered and watched,
	// but nothing should be submitted to it.
	Temporary bool `json:"temporary,omitempty"`
}

func localFleetPath(cfg *Config) string { return filepath.Join(cfg.Exhume.StateDir, "fleet.json") }

// publish lets other processes of this user find the fleet.
func (l localFleet) publish(cfg *Config) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	path := localFleetPath(cfg)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// forgetLocalFleet removes what a fleet has left there. Only the owner of the
// state directory's lock may call it: no fleet can work there then but its own.
func forgetLocalFleet(cfg *Config) error {
	if err := os.Remove(localFleetPath(cfg)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// findLocalFleet finds the fleet that works in the state directory.
func findLocalFleet(cfg *Config) (l localFleet, found bool) {
	data, err := os.ReadFile(localFleetPath(cfg))
	if errors.Is(err, fs.ErrNotExist) || json.Unmarshal(data, &l) != nil {
		return l, false
	}
	// A fleet that was killed leaves the file behind, but not its lock.
	f := flock.New(filepath.Join(cfg.Exhume.StateDir, "lock"), flock.SetPermissions(0o600))
	defer f.Close() //nolint:errcheck // gives the lock free, too
	free, err := f.TryLock()
	return l, err == nil && !free
}

// HasFleet says whether a fleet is configured or works in the state directory.
func HasFleet(cfg *Config) bool {
	l, found := findLocalFleet(cfg)
	return remote(cfg) || found && !l.Temporary
}

// remote says whether a fleet is configured.
func remote(cfg *Config) bool { return cfg.NATS.URL != "" || cfg.NATS.Context != "" }

// hasLocalFleet says whether any fleet works in the state directory, also one that
// ends with its batch.
func hasLocalFleet(cfg *Config) bool {
	_, found := findLocalFleet(cfg)
	return found
}

// connect connects to the fleet's broker, waiting for it as long as a start may
// take.
func (p *process) connect(ctx context.Context, role string) error {
	return p.connectTo(ctx, role, func(l localFleet) bool { return !l.Temporary })
}

// connectTo is connect with a choice among the fleets of this machine.
func (p *process) connectTo(ctx context.Context, role string, wanted func(localFleet) bool) (err error) {
	n := p.cfg.NATS
	o := broker.Options{
		Name: fmt.Sprintf("exhume %s %s", role, hostWorkerName()), URL: n.URL, Context: n.Context,
		Creds: n.Creds, NKey: n.NKey, User: n.User, Password: n.Password, Token: n.Token,
		CA: n.TLSCA, Cert: n.TLSCert, Key: n.TLSKey, Replicas: n.Replicas,
		StartTimeout: time.Duration(p.cfg.Exhume.StartTimeout), Log: p.log,
		Waiting: func(err error) { p.log.Warn().Err(err).Msg("waiting") },
		Bounds:  bounds(p.cfg),
	}
	if !remote(p.cfg) {
		local, found := findLocalFleet(p.cfg)
		if !found || !wanted(local) {
			return ErrNoFleet
		}
		o.URL, o.Token = local.URL, local.Token
	}
	if p.broker, err = broker.Connect(ctx, o); err != nil {
		return err
	}
	p.others = append(p.others, p.broker.Close)
	return nil
}

// join is connect for those who need a fleet that a collector has set up.
func (p *process) join(ctx context.Context, role string) error {
	if err := p.connect(ctx, role); err != nil {
		return err
	}
	return p.broker.Ready(ctx)
}

// joinAny is join for those who only steer or watch.
func (p *process) joinAny(ctx context.Context, role string) error {
	if err := p.connectTo(ctx, role, func(localFleet) bool { return true }); err != nil {
		return err
	}
	return p.broker.Ready(ctx)
}

// CheckBroker compares the fleet's broker with what it should be, and tells how full
// its streams are, as far as they are there.
func CheckBroker(ctx context.Context, cfg *Config, log zerolog.Logger) (found []broker.Difference, streams []broker.Usage, err error) {
	p := newProcess(cfg, log)
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.connect(ctx, "doctor"); err != nil {
		return nil, nil, err
	}
	if found, err = p.broker.Check(ctx); err != nil {
		return nil, nil, err
	}
	streams, err = p.broker.Usages(ctx)
	return found, streams, err
}
