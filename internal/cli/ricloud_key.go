package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

var keyColumns = []string{"id", "type", "state", "storage_config", "webhook_config", "token", "date_created", "date_expires"}

func (a *app) keyGroup() *cobra.Command {
	return group("key", "Create, list, update and rotate keys",
		a.keyList(), a.keyGet(), a.keyCurrent(), a.keyCreate(), a.keyUpdate(), a.keyRotate())
}

func (a *app) keyList() *cobra.Command {
	var (
		p keywright.KeyListParams
		l listFlags
	)
	c := &cobra.Command{Use: "list", Short: "List keys", Example: "keywright ricloud key list --state active --output json"}
	choiceVar(c.Flags(), &p.Type, "type", "", "only keys of `TYPE`: standard or trial", keywright.KeyStandard, keywright.KeyTrial)
	choiceVar(c.Flags(), &p.State, "state", "", "only keys in `STATE`: active, deactivated, blocked or expired",
		keywright.KeyActive, keywright.KeyDeactivated, keywright.KeyBlocked, keywright.KeyExpired)
	idVar(c.Flags(), &p.AfterID, "after", "begin behind the key with this `ID`")
	idVar(c.Flags(), &p.BeforeID, "before", "stop before the key with this `ID`")
	l.define(c, "1000")
	c.RunE = onRicloud(a, func(_ *cobra.Command, rc *keywright.Ricloud) error {
		p.Limit = l.pageSize
		return runList(a, &l, keyColumns, rc.Key.All(a.ctx, p))
	})
	return c
}

func (a *app) keyGet() *cobra.Command {
	c := &cobra.Command{
		Use: "get ID", Short: "Show a key", Args: arguments("ID"),
		Example: "keywright ricloud key get 7\nkeywright ricloud key get 7 --token-file ./ricloud.token",
	}
	s := a.saving(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := argID[keywright.KeyID](args[0])
		if err != nil {
			return err
		}
		return a.showKey(c, s, func(rc *keywright.Ricloud) (*keywright.Key, error) { return rc.Key.Retrieve(a.ctx, id) })
	}
	return c
}

func (a *app) keyCurrent() *cobra.Command {
	c := &cobra.Command{Use: "current", Short: "Show the key that the token in use belongs to"}
	s := a.saving(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.showKey(c, s, func(rc *keywright.Ricloud) (*keywright.Key, error) { return rc.Key.Current(a.ctx) })
	}
	return c
}

// showKey prints a key, and saves its token if that was asked for.
func (a *app) showKey(c *cobra.Command, s *issued, read func(*keywright.Ricloud) (*keywright.Key, error)) error {
	rc, err := a.ricloud()
	if err != nil {
		return err
	}
	return show(a, c, s, keyToken, func() (*keywright.Key, error) { return read(rc) })
}

func keyToken(k *keywright.Key) keywright.Secret { return k.Token }

func (a *app) keyCreate() *cobra.Command {
	var p keywright.KeyCreateParams
	c := &cobra.Command{
		Use: "create", Short: "Create a key",
		Long: `Create a key. ricloud has no way to delete one.

The call is sent once. If its answer is lost, the key is looked up.`,
		Example: "keywright ricloud key create --token-file ./new.token",
	}
	s := a.issuing(c)
	ps := newParams(c)
	param(ps, &p.StorageConfig, "storage-config", "id", "store results as the config with this `ID` says; else as the organisation's default does", true, parseID[keywright.StorageConfigID])
	param(ps, &p.WebhookConfig, "webhook-config", "id", "send events as the config with this `ID` says; else as the organisation's default does", true, parseID[keywright.WebhookConfigID])
	ps.defineNull("send null for `FIELD`, which means the organisation's default")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := ps.apply(); err != nil {
			return err
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		if err := s.reserve(c); err != nil {
			return err
		}
		defer s.release()
		before := existing(rc.Key.List(a.ctx, keywright.KeyListParams{Limit: 1000}))
		key, err := create(a, "keywright ricloud key list", "keywright ricloud key get %s --token-file FILE", func(ctx context.Context) (*keywright.Key, error) {
			return rc.Key.Create(ctx, p, before)
		})
		if err != nil {
			return err
		}
		s.again = fmt.Sprintf("rotate it to get a secret: keywright ricloud key rotate %d --token-file FILE", key.ID)
		return printIssued(a, s, key, key.Token)
	}
	return c
}

func (a *app) keyUpdate() *cobra.Command {
	var p keywright.KeyUpdateParams
	c := &cobra.Command{
		Use: "update ID", Short: "Change a key's configs", Args: arguments("ID"),
		Example: "keywright ricloud key update 7 --storage-config 3\nkeywright ricloud key update 7 --null webhook-config",
	}
	ps := newParams(c)
	param(ps, &p.StorageConfig, "storage-config", "id", "store results as the config with this `ID` says", true, parseID[keywright.StorageConfigID])
	param(ps, &p.WebhookConfig, "webhook-config", "id", "send events as the config with this `ID` says", true, parseID[keywright.WebhookConfigID])
	param(ps, &p.Config, "publish-source-files", "bool", "whether source files are published: `true|false`; newer versions of the API only", true, parsePublish)
	ps.defineNull("set `FIELD` back to the organisation's default")
	c.RunE = func(_ *cobra.Command, args []string) error {
		id, err := argID[keywright.KeyID](args[0])
		if err != nil {
			return err
		}
		if err := ps.apply(); err != nil {
			return err
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		return a.print(change(a, fmt.Sprintf("keywright ricloud key get %d", id), func(ctx context.Context) (*keywright.Key, error) {
			return rc.Key.UpdateWithID(ctx, id, p)
		}))
	}
	return c
}

func (a *app) keyRotate() *cobra.Command {
	var p keywright.KeyRotateParams
	c := &cobra.Command{
		Use: "rotate ID", Short: "Replace a key's token", Args: arguments("ID"),
		Long: `Replace a key's token. The old one works for six more hours, unless --revoke
says that it is to be refused at once.

The call is sent once. If its answer is lost, the key is looked up. This
delivers the token to one file at most; to deliver it to programs that use it,
and to survive being killed on the way, use: keywright rotate run`,
		Example: "keywright ricloud key rotate 7 --token-file ./new.token",
	}
	s := a.issuing(c)
	c.Flags().BoolVar(&p.Force, "revoke", false, "refuse the old token at once")
	a.confirmFlag(c)
	c.RunE = ricloudWithID(a, func(c *cobra.Command, rc *keywright.Ricloud, id keywright.KeyID) error {
		if err := s.reserve(c); err != nil {
			return err
		}
		defer s.release()
		question := fmt.Sprintf("Replace the token of key %d? The old one works for six more hours.", id)
		if p.Force {
			question = fmt.Sprintf("Replace the token of key %d? The old one is refused at once.", id)
		}
		if err := a.confirm(c, question); err != nil {
			return err
		}
		before, err := rc.Key.Retrieve(a.ctx, id) // its token tells a lost rotation from none
		if err != nil {
			return err
		}
		key, err := change(a, fmt.Sprintf("keywright ricloud key get %d --reveal", id), func(ctx context.Context) (*keywright.Key, error) {
			after := *before
			return &after, rc.Key.Rotate(ctx, &after, p)
		})
		if errors.Is(err, keywright.ErrOutcomeUnknown) && before.Token.IsZero() && !errors.As(err, new(*rescued)) {
			return instead(err, unreadable, fmt.Sprintf("to have a token that is known: keywright ricloud key rotate %d --token-file FILE", id))
		}
		if err != nil {
			return err
		}
		return printIssued(a, s, key, key.Token)
	})
	return c
}
