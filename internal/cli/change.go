package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

// confirmFlag defines --yes, for a command that asks first.
func (a *app) confirmFlag(c *cobra.Command) {
	c.Flags().BoolVarP(&a.yes, "yes", "y", false, "do not ask")
}

// confirm asks before something is destroyed. Off a terminal --yes must have
// said so.
func (a *app) confirm(c *cobra.Command, question string) error {
	if a.yes {
		return nil
	}
	if !a.interactive() {
		return usage("%s needs --yes when not run from a terminal; nothing was sent", c.Name())
	}
	answer, err := a.ask(question+" [y/N]", "")
	switch {
	case err != nil:
		return err
	case answer == "y" || answer == "Y" || answer == "yes":
		return nil
	}
	return &coded{errors.New("not confirmed; nothing was sent"), exitFailed}
}

// change makes a call that changes something, and is given the context of
// calls that the first interrupt does not end. A call whose answer was lost is
// looked up: the result is then what the provider has, or an error that says
// what is known and, with next, what to run.
func change[T any](a *app, next string, call func(context.Context) (*T, error)) (*T, error) {
	return create(a, next, "", call)
}

// create is change for a call that makes something. What is found when nobody
// has seen its answer could be what another program has made in the same second,
// unless it has a name of its own: with adopt it is not taken, but adopt says how
// to, for an id.
func create[T any](a *app, next, adopt string, call func(context.Context) (*T, error)) (v *T, err error) {
	if err := a.ctx.Err(); err != nil {
		return nil, err
	}
	defer func() { a.changed = a.changed || err == nil }()
	defer context.AfterFunc(a.ctx, func() {
		a.note("interrupted: waiting for the answer of the call that is under way; interrupt again to give up on it")
	})()
	v, err = call(a.committed)
	var lost interface {
		Recover(context.Context) (*keywright.Recovery, error)
	}
	if !errors.Is(err, keywright.ErrOutcomeUnknown) || !errors.As(err, &lost) {
		return v, err
	}
	a.note("the answer was lost: %s", trimmed(err))
	a.note("looking up what the provider did; this may take a minute")
	found, lookup := lost.Recover(a.committed)
	if found == nil {
		found = new(keywright.Recovery)
	}
	var refused *keywright.DecodeError
	if errors.As(err, &refused) && !refused.Orphan.IsZero() && !secretOf(found.Resource()).Equal(refused.Orphan) {
		return nil, a.rescue("secret", refused.Orphan, err) // nobody else has it
	}
	answered := keywright.OutcomeOf(err) == keywright.ResultLost // the provider has said that it did it
	switch {
	case lookup != nil:
		err = errors.Join(err, lookup)
	case found.Outcome == keywright.NotApplied && !answered:
		return nil, &coded{fmt.Errorf("%w; looked up: nothing has changed, and the command can be run again", err), exitFailed}
	case found.Outcome == keywright.Applied:
		if v, ok := found.Resource().(*T); len(found.Candidates) == 0 || ok && (answered || adopt == "") {
			a.note("the provider did it; this is what it has")
			return v, nil
		}
	}
	hints := []string{"find out what happened: " + next, "do not repeat the command before that"}
	for _, c := range found.Candidates {
		if r := (recorder{}).record(c); len(r) > 0 {
			id := cell(r[0].value)
			hints = append(hints, "it may have made or changed this one: "+id)
			if adopt != "" && found.Outcome == keywright.Applied {
				hints = append(hints, "if no other program was making one, it is yours: "+fmt.Sprintf(adopt, id))
			}
		}
	}
	return nil, hint(err, hints...)
}

// instead returns an error with other hints than it has.
func instead(err error, next ...string) error {
	if h := (*hinted)(nil); errors.As(err, &h) {
		err = h.err
	}
	return hint(err, next...)
}

// secretOf returns the secret that a resource is made for, if it has one.
func secretOf(v any) keywright.Secret {
	switch v := v.(type) {
	case *keywright.Key:
		return v.Token
	case *keywright.WebhookConfig:
		return v.Secret
	case *keywright.Credential:
		return credentialSecret(v)
	case *keywright.PlatformToken:
		return v.Token
	}
	return keywright.Secret{}
}

// existing looks what is there before a create, so that a lost answer is not
// looked up as something older: one that another run of the program has made.
func existing[T any](page *keywright.Page[T], err error) keywright.CallOption {
	if err != nil { // the create will say what is wrong, if anything is
		return keywright.WithExisting[T]()
	}
	return keywright.WithExisting(page.Items...)
}
