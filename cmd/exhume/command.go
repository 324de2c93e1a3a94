package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/schemas"
)

// commandFlags are the flags of commands that change something about batches.
type commandFlags struct {
	actor, reason string
	yes           bool
}

func (f *commandFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.actor, "by", "", "`who` wants this, for evidence (default the user's name)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, in your `words`, for evidence")
}

// addYes adds the answer to the question that is asked before something is done
// to many items.
func (f *commandFlags) addYes(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do it without asking; needed where there is no terminal")
}

// command is what the flags say, under a new id.
func (f *commandFlags) command() schemas.Command {
	actor := f.actor
	if actor == "" {
		actor = "unknown"
		if u, err := user.Current(); err == nil {
			actor = u.Username
		}
	}
	return schemas.Command{ID: uuid.NewString(), Actor: actor, Note: f.reason}
}

// confirm asks on a terminal whether to do what, and elsewhere wants --yes.
func (c *cli) confirm(cmd *cobra.Command, f *commandFlags, what string) error {
	c.say("%s", what)
	if f.yes {
		return nil
	}
	in, ok := c.in.(interface{ Fd() uintptr })
	if !ok || !isatty.IsTerminal(in.Fd()) {
		return usage(cmd, errors.New("there is no terminal to ask on: add --yes to do it"))
	}
	_, _ = fmt.Fprint(c.err, "Go on? [y/N] ")
	answer, err := c.readLine(cmd.Context())
	if cmd.Context().Err() != nil {
		return &codeError{exitInterrupted, errors.New("interrupted: nothing was done")}
	}
	if err != nil || !strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y") {
		return &codeError{exitRefused, errors.New("nothing was done")}
	}
	return nil
}

// readLine reads a line, or returns when the context ends.
func (c *cli) readLine(ctx context.Context) (string, error) {
	type read struct {
		line string
		err  error
	}
	done := make(chan read, 1)
	go func() {
		line, err := bufio.NewReader(c.in).ReadString('\n')
		done <- read{line, err}
	}()
	select {
	case r := <-done:
		return r.line, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// waiting says that another process has to end first.
func (c *cli) waiting(owner string) {
	c.say("Another exhume (%s) works in this state directory; waiting for it to end.", owner)
}

// ask opens the control API for questions.
func (c *cli) ask(cmd *cobra.Command, do func(q app.Questions, local bool) error) error {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	err = app.Ask(cmd.Context(), cfg, c.waiting, c.logger(cfg), do)
	if errors.Is(err, fs.ErrNotExist) {
		return &codeError{exitNotFound, err}
	}
	return err
}

// steer opens the control API for what do does, and closes it.
func (c *cli) steer(cmd *cobra.Command, do func(*app.Controls) error) (err error) {
	cfg, err := c.config(cmd)
	if err != nil {
		return err
	}
	controls, err := app.OpenControls(cmd.Context(), cfg, c.waiting, c.logger(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return &codeError{exitNotFound, err}
	}
	if err != nil {
		return err
	}
	err = do(controls)
	return errors.Join(err, controls.Close(cmd.Context()))
}

// standingText tells for people how a batch stands.
func standingText(b schemas.Batch) string {
	text := string(b.State)
	if b.Reason != "" {
		text += " (" + string(b.Reason) + ")"
	}
	if b.By != "" {
		text += " by " + b.By
	}
	if !b.Since.IsZero() {
		text += " since " + moment(b.Since)
	}
	if !b.Until.IsZero() {
		text += " until " + moment(b.Until)
	}
	if b.Note != "" {
		text += ": " + b.Note
	}
	return printable(text)
}

// untilTime reads a point in time: a duration from now on, or a time.
func untilTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d <= 0 {
			return time.Time{}, fmt.Errorf("--until %q: want a duration from now on", s)
		}
		return now.Add(d).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("--until %q: want a duration from now on (90m), or a time in UTC (2026-01-31T12:00:00Z)", s)
}
