package app

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// A bucket whose server says nothing holds up nobody who works elsewhere, and who
// asks for it meanwhile hears what the first one hears.
func TestAnAwayBucketHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(asked)
				return
			}
			asked <- c
		}
	}()
	cfg := &Config{}
	cfg.S3.Endpoint, cfg.S3.AccessKey, cfg.S3.SecretKey, cfg.S3.Private = "http://"+l.Addr().String(), "key", "secret", true
	targets := newTargets(cfg)
	away := schemas.Settings{Root: "s3://bucket/prefix"}
	var wg sync.WaitGroup
	ask := func() {
		if _, err := targets.group(away, 1); !fault.Is(err, schemas.CodeDestinationDown) {
			t.Errorf("got error %v", err)
		}
	}
	wg.Go(ask)
	first := <-asked
	for range 5 {
		wg.Go(ask)
	}
	begin := time.Now()
	for range 3 {
		root := t.TempDir()
		g, err := targets.group(schemas.Settings{Root: root}, 1)
		if err != nil {
			t.Fatal(err)
		}
		g.Abort()
		if err := targets.probe(t.Context(), root); err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("it took %s to begin elsewhere", d)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for c := first; c != nil; c = <-asked {
		_ = c.Close()
	}
	wg.Wait()
	if err := targets.close(); err != nil {
		t.Error(err)
	}
	if _, err := targets.get(t.TempDir()); err == nil {
		t.Error("a destination was opened when all were closed")
	}
}

// A probe opens a destination that could not be opened before.
func TestProbeOpensADestination(t *testing.T) {
	t.Parallel()
	targets := newTargets(&Config{})
	defer targets.close() //nolint:errcheck // a directory of the test's
	root := t.TempDir() + "/new"
	if err := targets.probe(context.Background(), root); err != nil {
		t.Error(err)
	}
	if one, err := targets.get(root); err != nil || targets.open[root] != one {
		t.Errorf("%v, %v", one, err)
	}
}
