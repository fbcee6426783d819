"""
Django's own texts that its zh_Hant catalogue words as on the mainland (用戶, 哈希, 鹽值),
or that mean another thing here.

Named here, they are collected into our catalogue, which goes before Django's.
"""

from django.utils.translation import gettext_lazy as _

DJANGO_STRINGS = (
    _("salt"),
    _("hash"),
    _("iterations"),
    _("active"),
    _("staff status"),
    _("codename"),
    _("log entry"),
    _("log entries"),
    _("Authentication and Authorization"),
    _("Personal info"),
    _("Password-based authentication"),
    _("Password-based authentication was disabled."),
    _("This account is inactive."),
    _("Password changed successfully."),
    _("Change password: %s"),
    _("Your old password was entered incorrectly. Please enter it again."),
    _("The password is too similar to the %(verbose_name)s."),
    _("Your password can’t be too similar to your other personal information."),
    _("This password is too common."),
    _("Your password can’t be a commonly used password."),
    _("This password is entirely numeric."),
    _("Your password can’t be entirely numeric."),
    _(
        "Whether the user will be able to authenticate using a password or not. If disabled, they may still be able to "
        "authenticate using other backends, such as Single Sign-On or LDAP."
    ),
    _("Raw passwords are not stored, so there is no way to see the user’s password."),
    _(
        "Raw passwords are not stored, so there is no way to see this user’s password, but you can change the password "
        'using <a href="{}" class="text-primary-600 dark:text-primary-500">this form</a>.'
    ),
    _("Enable password-based authentication for this user by setting a password."),
    _("Designates that this user has all permissions without explicitly assigning them."),
    _("The groups this user belongs to. A user will get all permissions granted to each of their groups."),
    _("Specific permissions for this user."),
    _("Designates whether the user can log into this admin site."),
    _("Designates whether this user should be treated as active. Unselect this instead of deleting accounts."),
    _("After you’ve created a user, you’ll be able to edit more user options."),
    _("This action will <strong>enable</strong> password-based authentication for this user."),
    _("This action will <strong>disable</strong> password-based authentication for this user."),
    _("Enter a new password for the user <strong>%(username)s</strong>."),
    _("Required. 150 characters or fewer. Letters, digits and @/./+/-/_ only."),
)
