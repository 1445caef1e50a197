# Unchecked: written without a machine that has Nix.
{
  description = "A self-hosted relay that makes a server behind NAT reachable over HTTPS";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "rendezvous";
          version = "0.1.0";
          src = ../../..;
          cargoLock.lockFile = ../../../Cargo.lock;
          buildAndTestSubdir = "server";
          # The tests need sockets and other programs.
          doCheck = false;
          nativeBuildInputs = [ pkgs.installShellFiles pkgs.cmake ];
          postInstall = ''
            $out/bin/rendezvous manual pages
            installManPage pages/*
            for shell in bash zsh fish; do
              $out/bin/rendezvous completions $shell > rendezvous.$shell
            done
            installShellCompletion rendezvous.{bash,zsh,fish}
          '';
          meta.mainProgram = "rendezvous";
        };
      });
    };
}
