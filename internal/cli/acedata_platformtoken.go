package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

func (a *app) platformTokenGroup() *cobra.Command {
	return group("platform-token", "Create, list and delete the tokens that this program authenticates with",
		a.platformTokenMe(), a.platformTokenList(), a.platformTokenGet(), a.platformTokenCreate(), a.platformTokenDelete())
}

func (a *app) platformTokenMe() *cobra.Command {
	return &cobra.Command{
		Use: "me", Short: "Show the user that the token in use belongs to",
		Example: "keywright acedata platform-token me",
		RunE: onAceData(a, func(_ *cobra.Command, ad *keywright.AceData) error {
			return a.print(ad.PlatformToken.Me(a.ctx))
		}),
	}
}

func (a *app) platformTokenList() *cobra.Command {
	var (
		p keywright.PlatformTokenListParams
		l offsetFlags
	)
	c := &cobra.Command{
		Use: "list", Short: "List platform tokens",
		Long:    `List platform tokens: your own, unless --user-id says whose.`,
		Example: "keywright acedata platform-token list --tag ci",
	}
	f := c.Flags()
	textsVar(f, &p.UserIDs, "user-id", "only tokens of the user with this `ID`")
	textVar(f, &p.Tag, "tag", "only tokens with this `TAG`")
	l.define(c)
	c.RunE = onAceData(a, func(c *cobra.Command, ad *keywright.AceData) error {
		p.Limit, p.Offset, p.Ordering = l.pageSize, l.offset, l.ordering
		columns := []string{"id", "token", "user_id", "tags", "created_at", "used_at", "expiration"}
		return runList(a, &l.listFlags, columns, ad.PlatformToken.All(a.ctx, p, l.options(c)...))
	})
	return c
}

func (a *app) platformTokenGet() *cobra.Command {
	c := &cobra.Command{
		Use: "get ID", Short: "Show a platform token", Args: arguments("ID"),
		Example: "keywright acedata platform-token get 3d8f1c5e-7a52-4d43-8a4e-0c9a6d1b2e3f",
	}
	s := a.saving(c)
	c.RunE = acedataWithID(a, func(c *cobra.Command, ad *keywright.AceData, id keywright.PlatformTokenID) error {
		return show(a, c, s, platformSecret, func() (*keywright.PlatformToken, error) { return ad.PlatformToken.Retrieve(a.ctx, id) })
	})
	return c
}

func platformSecret(t *keywright.PlatformToken) keywright.Secret { return t.Token }

func (a *app) platformTokenCreate() *cobra.Command {
	var p keywright.PlatformTokenCreateParams
	c := &cobra.Command{
		Use: "create", Short: "Create a platform token",
		Long: `Create a platform token. It cannot be changed or rotated: to replace one, create
another and delete the old.

The call is sent once. If its answer is lost, the token is looked up by owner
and time.`,
		Example: "keywright acedata platform-token create --tag ci --token-file ./platform.token",
	}
	ps := newParams(c)
	param(ps, &p.UserID, "user-id", "text", "make it for the user with this `ID`; for superusers", true, parseText)
	listParam(ps, &p.Tags, "tag", "add a `TAG`", false)
	ps.null["tag"] = func() { p.Tags = keywright.Null[[]string]() } // an empty one is refused all the same
	param(ps, &p.Metadata, "metadata", "json", "free data: a `JSON` object", true, parseObject)
	ps.defineNull("send null for `FIELD`, which means the provider's default")
	s := a.issuing(c)
	c.RunE = onAceData(a, func(c *cobra.Command, ad *keywright.AceData) error {
		if err := ps.apply(); err != nil {
			return err
		}
		if err := s.reserve(c); err != nil {
			return err
		}
		defer s.release()
		before := existing(ad.PlatformToken.List(a.ctx, keywright.PlatformTokenListParams{Ordering: keywright.NewestFirst, Limit: 100}))
		token, err := create(a, "keywright acedata platform-token list --ordering -created_at --limit 5", "keywright acedata platform-token get %s --token-file FILE", func(ctx context.Context) (*keywright.PlatformToken, error) {
			return ad.PlatformToken.Create(ctx, p, before)
		})
		if err != nil {
			return err
		}
		s.again = fmt.Sprintf("delete it and create another: keywright acedata platform-token delete %s", token.ID)
		return printIssued(a, s, token, token.Token)
	})
	return c
}

func (a *app) platformTokenDelete() *cobra.Command {
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete a platform token", Args: arguments("ID"),
		Long: `Delete a platform token. It is refused from that moment on: who deletes the
token in use, and has no other, is locked out. It asks first; away from a
terminal it needs --yes. If the answer is lost, it is looked up, and the call
repeated if it did nothing.`,
		Example: "keywright acedata platform-token delete 3d8f1c5e-7a52-4d43-8a4e-0c9a6d1b2e3f --yes",
	}
	a.confirmFlag(c)
	c.RunE = acedataWithID(a, func(c *cobra.Command, ad *keywright.AceData, id keywright.PlatformTokenID) error {
		return runDelete(a, c, "platform token "+string(id), "It is refused at once, also if it is the one in use.",
			"keywright acedata platform-token get "+string(id),
			func(ctx context.Context) error { return ad.PlatformToken.Delete(ctx, id) })
	})
	return c
}
