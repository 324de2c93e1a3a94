package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// The exit codes; scripts rely on them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitPartial     = 3
	exitFailed      = 4
	exitTemporary   = 5
	exitNotFound    = 6
	exitRefused     = 7
	exitCancelled   = 8
	exitInterrupted = 130
)

// codeError is an error with an exit code of its own. Without a cause it is
// silent: everything was said already.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// usage is an error about the command line.
func usage(cmd *cobra.Command, err error) error {
	return &codeError{exitUsage, fmt.Errorf("%w\nSee '%s --help'", err, cmd.CommandPath())}
}

// wrongFlag is usage for what the flags' package found, without the names of Go's functions.
func wrongFlag(cmd *cobra.Command, err error) error {
	if wrong, ok := errors.AsType[*strconv.NumError](err); ok {
		if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
			err = fmt.Errorf("--%s %q: want a number", bad.GetFlag().Name, wrong.Num)
		}
	}
	return usage(cmd, err)
}

// exitCode prints what has to be said about err and maps it to an exit code.
func (c *cli) exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	code := codeOf(err)
	if ce, ok := errors.AsType[*codeError](err); ok && ce.err == nil {
		return code
	}
	c.say("error: %v", err)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		c.say("  %s: %s", f.Code, f.Code.Info().Remedy)
	}
	if s, ok := errors.AsType[*worker.SickError](err); ok {
		c.say("  %s: %s", s.Code, s.Code.Info().Remedy)
	}
	return code
}

func codeOf(err error) int {
	if ce, ok := errors.AsType[*codeError](err); ok {
		return ce.code
	}
	if _, ok := errors.AsType[*app.InvalidManifestError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*app.PausedError](err); ok {
		return exitPartial
	}
	if _, ok := errors.AsType[producer.Reject](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*worker.SickError](err); ok {
		return exitTemporary
	}
	if _, ok := errors.AsType[*app.InUseError](err); ok {
		return exitRefused
	}
	switch {
	case errors.Is(err, app.ErrNoManifest), errors.Is(err, app.ErrNoFleet):
		return exitUsage
	case errors.Is(err, app.ErrInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, ledger.ErrNotFound):
		return exitNotFound
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return codeOfFault(f.Code)
	}
	return exitError
}

// codeOfFault is the exit code for one item's error.
func codeOfFault(code schemas.Code) int {
	switch code {
	case schemas.CodeTombstoneNotFound, schemas.CodeBatchNotFound:
		return exitNotFound
	case schemas.CodeBatchAmbiguous, schemas.CodeBadRequest:
		return exitUsage
	case schemas.CodePathRefused, schemas.CodeDestinationExists, schemas.CodeDestinationDenied, schemas.CodeDestinationMissing,
		schemas.CodeArtifactDenied, schemas.CodeBrokerDenied, schemas.CodeBatchState:
		return exitRefused
	}
	switch code.Class() {
	case schemas.ClassBackendDown, schemas.ClassWorkerSick, schemas.ClassTransient:
		return exitTemporary
	default:
		return exitFailed
	}
}

// codeOfState is the exit code for a batch.
func codeOfState(s schemas.State) int {
	switch s {
	case schemas.StateSucceeded:
		return exitOK
	case schemas.StatePartial:
		return exitPartial
	case schemas.StateCancelled:
		return exitCancelled
	default:
		return exitFailed
	}
}
